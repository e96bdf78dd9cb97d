//! What a holdfast_v1 guest in Rust is written against: values of a request,
//! the answer, and the contract's exports. It allocates nothing.
#![no_std]

use core::panic::PanicInfo;

const MAX_DEPTH: u32 = 40;
const INPUT_BYTES: usize = 32 << 10;
const KEPT_BYTES: usize = 4 << 10;
const LINE_BYTES: usize = 1024;
const OUTPUT_BYTES: usize = LINE_BYTES + 256;

// CBOR's major types.
const UINT: u8 = 0;
const NEGINT: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

/// What a policy registers with [`export!`].
pub trait Policy {
    /// Called once, before the first decision. False refuses to load the module.
    fn configure(&mut self, params: Value, data: Value) -> bool;
    /// Answers one request. `d` is a denial without a reason.
    fn decide(&mut self, request: Value, d: &mut Decision);
}

/// A decision with one reason.
pub struct Decision {
    /// One of deny, require_approval, throttle, transform and allow.
    pub verdict: &'static str,
    pub code: &'static str,
    pub text: Line,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Absent,
    Null,
    Bool,
    Int,
    Float,
    Text,
    List,
    Map,
}

/// A view into a CBOR document that was checked before: the bytes from the
/// item's first on, none when it is absent. Every method of an absent value, or
/// of one of another kind, returns the zero of its result.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

struct Head {
    major: u8,
    arg: u64,
    size: usize,
}

fn head(b: &[u8]) -> Option<Head> {
    let first = *b.first()?;
    let (major, info) = (first >> 5, first & 31);
    if info < 24 {
        return Some(Head { major, arg: info as u64, size: 1 });
    }
    if info > 27 {
        return None; // reserved, or an indefinite length
    }
    let size = 1 + (1 << (info - 24));
    let arg = b.get(1..size)?.iter().fold(0, |arg, c| arg << 8 | *c as u64);
    Some(Head { major, arg, size })
}

/// What is behind the first item of b, None when it is not what Holdfast writes:
/// definite lengths, text keys, no tags, no byte strings, MAX_DEPTH levels.
fn check(b: &[u8], depth: u32) -> Option<&[u8]> {
    let Head { major, arg, size } = head(b)?;
    if depth > MAX_DEPTH {
        return None;
    }
    let body = &b[size..];
    match major {
        UINT | NEGINT => (arg <= i64::MAX as u64).then_some(body),
        TEXT => body.get(usize::try_from(arg).ok()?..),
        LIST | MAP => check_items(body, arg, major == MAP, depth + 1),
        SIMPLE if size == 1 => (20..=22).contains(&arg).then_some(body),
        SIMPLE => (size > 2).then_some(body),
        _ => None,
    }
}

fn check_items(mut b: &[u8], n: u64, pairs: bool, depth: u32) -> Option<&[u8]> {
    if n > b.len() as u64 {
        return None;
    }
    for _ in 0..n {
        if pairs {
            if *b.first()? >> 5 != TEXT {
                return None;
            }
            b = check(b, depth)?;
        }
        b = check(b, depth)?;
    }
    Some(b)
}

fn parse(doc: &[u8]) -> Option<Value<'_>> {
    check(doc, 0)?.is_empty().then_some(Value(doc))
}

/// What is behind the first item of a checked document.
fn skip(mut b: &[u8]) -> &[u8] {
    let mut left = 1;
    while left > 0 {
        let Some(Head { major, arg, size }) = head(b) else { return &[] };
        left -= 1;
        let text = if major == TEXT { arg as usize } else { 0 };
        b = b.get(size + text..).unwrap_or_default();
        match major {
            LIST => left += arg,
            MAP => left += 2 * arg,
            _ => {}
        }
    }
    b
}

impl<'a> Value<'a> {
    pub const ABSENT: Value<'static> = Value(&[]);

    pub fn kind(self) -> Kind {
        match self.0.first() {
            None => Kind::Absent,
            Some(0xf4 | 0xf5) => Kind::Bool,
            Some(0xf6) => Kind::Null,
            Some(b) => match b >> 5 {
                UINT | NEGINT => Kind::Int,
                TEXT => Kind::Text,
                LIST => Kind::List,
                MAP => Kind::Map,
                _ => Kind::Float,
            },
        }
    }

    pub fn bool(self) -> bool {
        self.0.first() == Some(&0xf5)
    }

    pub fn int(self) -> Option<i64> {
        let h = head(self.0)?;
        match h.major {
            UINT => Some(h.arg as i64),
            NEGINT => Some(-1 - h.arg as i64),
            _ => None,
        }
    }

    pub fn text(self) -> &'a [u8] {
        match head(self.0) {
            Some(h) if h.major == TEXT => self.0.get(h.size..h.size + h.arg as usize).unwrap_or_default(),
            _ => &[],
        }
    }

    pub fn get(self, key: &str) -> Value<'a> {
        let Some(h) = head(self.0).filter(|h| h.major == MAP) else { return Value(&[]) };
        let mut b = &self.0[h.size..];
        for _ in 0..h.arg {
            let value = skip(b);
            if Value(b).text() == key.as_bytes() {
                return Value(value);
            }
            b = skip(value);
        }
        Value(&[])
    }

    /// The items of a list.
    pub fn items(self) -> impl Iterator<Item = Value<'a>> {
        let (mut left, mut b) = match head(self.0) {
            Some(h) if h.major == LIST => (h.arg, &self.0[h.size..]),
            _ => (0, self.0),
        };
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let item = Value(b);
            b = skip(b);
            Some(item)
        })
    }

    /// A copy that outlives the call, for configuration; absent when there is no room.
    pub fn keep(self) -> Value<'static> {
        let size = self.0.len() - skip(self.0).len();
        if self.kind() == Kind::Absent {
            return Value::ABSENT;
        }
        // SAFETY: the guest has one thread, the copy lies within KEPT behind all
        // that was handed out before, and is never written again.
        unsafe {
            let from = KEPT_LEN;
            if size > KEPT_BYTES - from {
                return Value::ABSENT;
            }
            let to = (&raw mut KEPT).cast::<u8>().add(from);
            to.copy_from_nonoverlapping(self.0.as_ptr(), size);
            KEPT_LEN = from + size;
            Value(core::slice::from_raw_parts(to, size))
        }
    }
}

/// A text in the making. One that does not fit makes the decision a guest error.
pub struct Line {
    at: [u8; LINE_BYTES],
    len: usize,
    full: bool,
}

impl Line {
    pub fn add(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        self.full |= end > LINE_BYTES;
        if !self.full {
            self.at[self.len..end].copy_from_slice(text);
            self.len = end;
        }
    }

    pub fn add_int(&mut self, n: i64) {
        let (mut digits, mut at, mut left) = ([0; 20], 20, n.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if n < 0 {
            self.add(b"-");
        }
        self.add(&digits[at..]);
    }
}

struct Output {
    at: [u8; OUTPUT_BYTES],
    len: usize,
    full: bool,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.full |= end > OUTPUT_BYTES;
        if !self.full {
            self.at[self.len..end].copy_from_slice(bytes);
            self.len = end;
        }
    }

    fn head(&mut self, major: u8, arg: usize) {
        match arg {
            0..24 => self.put(&[major << 5 | arg as u8]),
            24..256 => self.put(&[major << 5 | 24, arg as u8]),
            _ => self.put(&[major << 5 | 25, (arg >> 8) as u8, arg as u8]),
        }
    }

    fn text(&mut self, t: &[u8]) {
        self.head(TEXT, t.len());
        self.put(t);
    }

    fn decision(&mut self, d: &Decision) {
        (self.len, self.full) = (0, d.text.full);
        self.head(MAP, 2);
        self.text(b"verdict");
        self.text(d.verdict.as_bytes());
        self.text(b"reasons");
        self.head(LIST, 1);
        self.head(MAP, 2);
        self.text(b"code");
        self.text(d.code.as_bytes());
        self.text(b"text");
        self.text(&d.text.at[..d.text.len]);
    }
}

static mut INPUT: [u8; INPUT_BYTES] = [0; INPUT_BYTES];
static mut KEPT: [u8; KEPT_BYTES] = [0; KEPT_BYTES];
static mut KEPT_LEN: usize = 0;
static mut DECISION: Decision = Decision { verdict: "", code: "", text: Line { at: [0; LINE_BYTES], len: 0, full: false } };
static mut OUTPUT: Output = Output { at: [0; OUTPUT_BYTES], len: 0, full: false };

#[unsafe(no_mangle)]
pub extern "C" fn holdfast_abi_v1() -> u32 {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn holdfast_alloc(len: usize) -> usize {
    if len > INPUT_BYTES { 0 } else { (&raw const INPUT) as usize }
}

/// The document of len bytes in the input buffer.
fn input(len: usize) -> Option<Value<'static>> {
    // SAFETY: the guest has one thread, and nothing writes the buffer while it runs.
    let buffer = unsafe { &*(&raw const INPUT) };
    parse(buffer.get(..len)?)
}

#[doc(hidden)]
pub fn init(policy: &mut dyn Policy, len: usize) -> i32 {
    let Some(doc) = input(len) else { return 1 };
    !policy.configure(doc.get("params"), doc.get("data")) as i32
}

#[doc(hidden)]
pub fn decide(policy: &mut dyn Policy, len: usize) -> u64 {
    let Some(request) = input(len) else { return 0 };
    // SAFETY: the guest has one thread, and no other reference to these two exists.
    let (d, output) = unsafe { (&mut *(&raw mut DECISION), &mut *(&raw mut OUTPUT)) };
    (d.verdict, d.code, d.text.len, d.text.full) = ("deny", "", 0, false);
    policy.decide(request, d);
    output.decision(d);
    if output.full { 0 } else { (output.at.as_ptr() as u64) << 32 | output.len as u64 }
}

/// Makes a policy the module's: `export!(Type, initial value)`.
#[macro_export]
macro_rules! export {
    ($type:ty, $value:expr) => {
        static mut POLICY: $type = $value;
        #[unsafe(no_mangle)]
        extern "C" fn holdfast_init(_: usize, len: usize) -> i32 {
            // SAFETY: the guest has one thread, and the host does not call it while it runs.
            $crate::init(unsafe { &mut *(&raw mut POLICY) }, len)
        }
        #[unsafe(no_mangle)]
        extern "C" fn holdfast_decide(_: usize, len: usize) -> u64 {
            // SAFETY: as above.
            $crate::decide(unsafe { &mut *(&raw mut POLICY) }, len)
        }
    };
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
