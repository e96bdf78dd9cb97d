//! What a Holdfast policy in Rust is written against: the request as values, the
//! decision in the making, and version 1 of the guest contract. It needs core and
//! alloc, and no crate.
//!
//! ```text
//! #![no_std]
//! mod holdfast;
//! use holdfast::{Decision, Policy, Request, Value};
//!
//! struct OnlyAlice;
//! holdfast::export!(OnlyAlice);
//!
//! impl Policy for OnlyAlice {
//!     fn configure(_params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
//!         Ok(OnlyAlice)
//!     }
//!     fn decide(&self, request: Request, answer: &mut Decision) {
//!         match request.subject().id() {
//!             "alice" => answer.allow("alice").say("it is alice"),
//!             other => answer.deny("not_alice").say(other).say(" is not alice"),
//!         };
//!     }
//! }
//! ```
#![allow(dead_code)]

pub extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::marker::PhantomData;
use core::ops::Deref;

/// How deep a request may nest.
pub const MAX_DEPTH: u32 = 40;
/// How long an answer may be; a longer one is a guest error.
pub const MAX_OUTPUT: usize = 64 << 10;
/// The room that every call has without memory growing, which would cost the
/// host an instance.
const HEADROOM: usize = 16 << 10;

// CBOR's major types.
const UINT: u8 = 0;
const NEGINT: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

/// What a module registers with [`export!`].
pub trait Policy: Sized {
    /// Makes the policy, once, before the first decision, of the package's
    /// parameters and data, either of which may be absent. They stay valid for
    /// ever, so that the policy may keep any value of them. An error is logged,
    /// and refuses to load the module.
    fn configure(params: Value<'static>, data: Value<'static>) -> Result<Self, &'static str>;
    /// Answers one request. `answer` is a denial without a reason. Nothing that
    /// is kept here is there in the next call: the host restores the memory.
    fn decide(&self, request: Request, answer: &mut Decision);
}

// ---- values ----

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
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

/// A view into a document that was checked when it came in. It copies nothing.
/// An absent value, and one of another kind than is asked for, gives `None`, or
/// an empty iterator, or another absent value.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    at: usize, // the item's first byte, 0 when it is absent
    document: PhantomData<&'a [u8]>,
}

// SAFETY (of all reads below): a Value is made of nothing but the address of an
// item in a document that `check` has walked, and the document outlives 'a.

fn byte(at: usize) -> u8 {
    unsafe { *(at as *const u8) }
}

fn load<T: Copy>(at: usize) -> T {
    unsafe { (at as *const T).read_unaligned() }
}

/// The argument of the item at `at`, and where the head ends.
#[inline(always)]
fn head(at: usize) -> (u64, usize) {
    let info = byte(at) & 31;
    if info < 24 { (info as u64, at + 1) } else { (long_argument(at), at + 1 + (1 << (info - 24))) }
}

/// The argument of the item at `at`, whose info is 24 to 27.
#[inline(never)]
fn long_argument(at: usize) -> u64 {
    let bytes = load::<u64>(at + 1).swap_bytes();
    match byte(at) & 31 {
        24 => bytes >> 56,
        25 => bytes >> 48,
        26 => bytes >> 32,
        _ => bytes,
    }
}

/// Where the item at `at` ends.
fn skip(mut at: usize) -> usize {
    let mut left = 1;
    while left > 0 {
        let major = byte(at) >> 5;
        let (arg, body) = head(at);
        at = body;
        left -= 1;
        match major {
            TEXT => at += arg as usize,
            LIST => left += arg as usize,
            MAP => left += 2 * arg as usize,
            _ => {}
        }
    }
    at
}

/// Where the last of `count` items at `at` ends, or of as many pairs; 0 when one
/// is not what Holdfast writes: definite lengths, text keys, UTF-8, no tags, no
/// byte strings, integers of 64 bits with their sign, MAX_DEPTH levels, and all
/// of it before `end`.
fn check(mut at: usize, end: usize, count: u64, pairs: bool, depth: u32) -> usize {
    if count > (end - at) as u64 || depth > MAX_DEPTH && count > 0 {
        return 0;
    }
    let mut left = if pairs { 2 * count } else { count };
    while left > 0 {
        if at >= end {
            return 0;
        }
        let (major, info) = (byte(at) >> 5, byte(at) & 31);
        if pairs && left & 1 == 0 && major != TEXT {
            return 0;
        }
        left -= 1;
        // The head may end behind `end`: it is compared before the argument counts.
        // What is read there is still memory, as `grab` leaves some bytes behind.
        if info > 27 {
            return 0;
        }
        let arg;
        (arg, at) = head(at);
        if at > end {
            return 0;
        }
        match major {
            TEXT if arg <= (end - at) as u64 && is_utf8(at, arg as usize) => at += arg as usize,
            UINT | NEGINT if arg <= i64::MAX as u64 => {}
            SIMPLE if info > 24 || (20..=22).contains(&info) => {}
            LIST | MAP => {
                at = check(at, end, arg, major == MAP, depth + 1);
                if at == 0 {
                    return 0;
                }
            }
            _ => return 0,
        }
    }
    at
}

fn is_utf8(at: usize, len: usize) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (mut p, end) = (at, at + len);
    while end - p >= 32 {
        if (load::<u64>(p) | load::<u64>(p + 8) | load::<u64>(p + 16) | load::<u64>(p + 24)) & HIGH != 0 {
            return is_wide_utf8(at, len);
        }
        p += 32;
    }
    while end - p >= 8 {
        if load::<u64>(p) & HIGH != 0 {
            return is_wide_utf8(at, len);
        }
        p += 8;
    }
    // The rest, without what lies behind it.
    let rest = load::<u64>(p) & HIGH & !(u64::MAX << (8 * (end - p)));
    rest == 0 || is_wide_utf8(at, len)
}

#[cold]
fn is_wide_utf8(at: usize, len: usize) -> bool {
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(at as *const u8, len) }).is_ok()
}

fn same(a: usize, b: usize, len: usize) -> bool {
    if len < 4 {
        return (0..len).all(|i| byte(a + i) == byte(b + i));
    }
    let mut i = 0;
    while i + 8 <= len {
        if load::<u64>(a + i) != load::<u64>(b + i) {
            return false;
        }
        i += 8;
    }
    if len >= 8 {
        return load::<u64>(a + len - 8) == load::<u64>(b + len - 8);
    }
    load::<u32>(a) == load::<u32>(b) && load::<u32>(a + len - 4) == load::<u32>(b + len - 4)
}

impl<'a> Value<'a> {
    pub const ABSENT: Value<'static> = Value::new(0);

    const fn new(at: usize) -> Value<'a> {
        Value { at, document: PhantomData }
    }

    #[inline]
    pub fn kind(self) -> Kind {
        if self.at == 0 {
            return Kind::Absent;
        }
        let first = byte(self.at);
        match first >> 5 {
            UINT | NEGINT => Kind::Int,
            TEXT => Kind::Text,
            LIST => Kind::List,
            MAP => Kind::Map,
            _ if first >= 0xf9 => Kind::Float,
            _ if first == 0xf6 => Kind::Null,
            _ if first == 0xf4 || first == 0xf5 => Kind::Bool,
            _ => Kind::Absent,
        }
    }

    /// Whether the value is there; null is.
    pub fn exists(self) -> bool {
        self.at != 0
    }

    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    pub fn bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| byte(self.at) == 0xf5)
    }

    /// A whole number. 1.0 is none: it is a float.
    #[inline]
    pub fn int(self) -> Option<i64> {
        if self.kind() != Kind::Int {
            return None;
        }
        let arg = head(self.at).0 as i64;
        Some(if byte(self.at) >> 5 == NEGINT { -1 - arg } else { arg })
    }

    /// A number of either kind; whole numbers beyond 2^53 are rounded.
    pub fn float(self) -> Option<f64> {
        if self.kind() == Kind::Float { Some(float(self.at)) } else { self.int().map(|n| n as f64) }
    }

    #[inline]
    pub fn text(self) -> Option<&'a str> {
        if self.kind() != Kind::Text {
            return None;
        }
        let (len, at) = head(self.at);
        // SAFETY: `check` has seen that it is UTF-8.
        Some(unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(at as *const u8, len as usize)) })
    }

    /// Whether the value is this text.
    #[inline]
    pub fn is(self, text: &str) -> bool {
        self.text().is_some_and(|own| own.len() == text.len() && same(own.as_ptr() as usize, text.as_ptr() as usize, text.len()))
    }

    /// A text in RFC 3339, as nanoseconds since 1970; see [`rfc3339`].
    pub fn time(self) -> Option<i64> {
        rfc3339(self.text()?)
    }

    /// The bytes of a text, items of a list or members of a map, else 0.
    #[inline]
    pub fn len(self) -> usize {
        if self.kind() >= Kind::Text { head(self.at).0 as usize } else { 0 }
    }

    /// A map's member.
    pub fn get(self, key: &str) -> Value<'a> {
        if self.kind() != Kind::Map {
            return Value::new(0);
        }
        let (members, mut at) = head(self.at);
        for _ in 0..members {
            let (len, name) = head(at);
            at = name + len as usize;
            if len as usize == key.len() && same(name, key.as_ptr() as usize, key.len()) {
                return Value::new(at);
            }
            at = skip(at);
        }
        Value::new(0)
    }

    /// What is found by following the keys through maps.
    pub fn path(self, keys: &[&str]) -> Value<'a> {
        keys.iter().fold(self, |value, key| value.get(key))
    }

    /// The items of a list.
    #[inline]
    pub fn items(self) -> Items<'a> {
        let (left, at) = if self.kind() == Kind::List { head(self.at) } else { (0, 0) };
        Items { left: left as usize, at, document: PhantomData }
    }

    /// The members of a map, shorter keys first and keys of one length by their bytes.
    #[inline]
    pub fn members(self) -> Members<'a> {
        let (left, at) = if self.kind() == Kind::Map { head(self.at) } else { (0, 0) };
        Members(Items { left: 2 * left as usize, at, document: PhantomData })
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, text: &str) -> bool {
        self.is(text)
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, text: &&str) -> bool {
        self.is(text)
    }
}

#[derive(Clone)]
pub struct Items<'a> {
    left: usize,
    at: usize,
    document: PhantomData<&'a [u8]>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let item = Value::new(self.at);
        self.at = skip(self.at);
        Some(item)
    }
}

#[derive(Clone)]
pub struct Members<'a>(Items<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Value<'a>);
    fn next(&mut self) -> Option<(&'a str, Value<'a>)> {
        let key = self.0.next()?.text()?;
        Some((key, self.0.next()?))
    }
}

/// The float at `at`, of any width.
fn float(at: usize) -> f64 {
    let bits = head(at).0;
    match byte(at) {
        0xf9 => half(bits as u16),
        0xfa => f32::from_bits(bits as u32) as f64,
        _ => f64::from_bits(bits),
    }
}

/// Widens an IEEE 754 binary16 by its bits.
fn half(h: u16) -> f64 {
    let (exponent, fraction) = ((h >> 10 & 31) as u64, (h & 1023) as u64);
    let magnitude = match exponent {
        0 => fraction as f64 / (1 << 24) as f64,
        31 => f64::from_bits(0x7ff << 52 | fraction << 42),
        _ => f64::from_bits((exponent + 1023 - 15) << 52 | fraction << 42),
    };
    if h >> 15 == 1 { -magnitude } else { magnitude }
}

// ---- the request ----

/// What a workload asks at a decision point. All of it is there as a [`Value`];
/// the methods name the members that every request has. A text that is not there is empty.
#[derive(Clone, Copy)]
pub struct Request<'a>(Value<'a>);

impl<'a> Deref for Request<'a> {
    type Target = Value<'a>;
    fn deref(&self) -> &Value<'a> {
        &self.0
    }
}

impl<'a> Request<'a> {
    pub fn point(self) -> &'a str {
        self.get("point").text().unwrap_or_default()
    }
    /// The asker's request id.
    pub fn id(self) -> &'a str {
        self.get("id").text().unwrap_or_default()
    }
    pub fn subject(self) -> Entity<'a> {
        Entity(self.get("subject"))
    }
    /// The name of what is to be done.
    pub fn action(self) -> &'a str {
        self.get("action").get("name").text().unwrap_or_default()
    }
    pub fn resource(self) -> Entity<'a> {
        Entity(self.get("resource"))
    }
    pub fn context(self) -> Value<'a> {
        self.get("context")
    }
    /// The bare input document.
    pub fn document(self) -> Value<'a> {
        self.get("document")
    }
    /// Whether the asker said that it can perform obligations of the type.
    pub fn performs(self, obligation: &str) -> bool {
        self.get("supported_obligations").items().any(|o| o.is(obligation))
    }
}

/// A subject or a resource.
#[derive(Clone, Copy)]
pub struct Entity<'a>(Value<'a>);

impl<'a> Deref for Entity<'a> {
    type Target = Value<'a>;
    fn deref(&self) -> &Value<'a> {
        &self.0
    }
}

impl<'a> Entity<'a> {
    pub fn type_name(self) -> &'a str {
        self.get("type").text().unwrap_or_default()
    }
    pub fn id(self) -> &'a str {
        self.get("id").text().unwrap_or_default()
    }
    pub fn property(self, name: &str) -> Value<'a> {
        self.get("properties").get(name)
    }
}

// ---- time ----

/// The instant of a text in RFC 3339, in nanoseconds since 1970: `YYYY-MM-DD`,
/// `T` or `t`, `HH:MM:SS`, optionally `.` and 1 to 9 digits, then `Z`, `z` or an
/// offset; years 1970 to 2200, no leap seconds. Anything else is `None`.
pub fn rfc3339(text: &str) -> Option<i64> {
    let t = text.as_bytes();
    if t.len() < 20 || t[4] != b'-' || t[7] != b'-' || t[10] | 32 != b't' || t[13] != b':' || t[16] != b':' {
        return None;
    }
    let year = number(t, 0)? * 100 + number(t, 2)?;
    let (month, day) = (number(t, 5)?, number(t, 8)?);
    let (hour, minute, second) = (number(t, 11)?, number(t, 14)?, number(t, 17)?);
    if !(1970..=2200).contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = fraction(&t[19..])?;
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset(zone)?;
    Some((minutes * 60 + second) * 1_000_000_000 + nanos)
}

/// Two digits at `at`.
fn number(t: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (t.get(at)?.wrapping_sub(b'0'), t.get(at + 1)?.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| tens as i64 * 10 + ones as i64)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - 477; // 477 until 1970
    (year - 1970) * 365 + leaps + (1..month).map(|m| days_of(year, m)).sum::<i64>() + day - 1
}

/// The nanoseconds of an optional fraction, and what is behind it.
fn fraction(t: &[u8]) -> Option<(i64, &[u8])> {
    if t[0] != b'.' {
        return Some((0, t));
    }
    let digits = t[1..].iter().take_while(|c| c.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let mut nanos = 0;
    for i in 0..9 {
        nanos = nanos * 10 + if i < digits { (t[1 + i] - b'0') as i64 } else { 0 };
    }
    Some((nanos, &t[1 + digits..]))
}

/// The minutes that a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1)?, number(zone, 4)?);
            let ahead = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
    }
}

// ---- the decision ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Deny,
    RequireApproval,
    Throttle,
    Transform,
    Allow,
}

impl Verdict {
    /// The member of the answer.
    fn member(self) -> &'static [u8] {
        match self {
            Verdict::Deny => b"\x67verdict\x64deny",
            Verdict::RequireApproval => b"\x67verdict\x70require_approval",
            Verdict::Throttle => b"\x67verdict\x68throttle",
            Verdict::Transform => b"\x67verdict\x69transform",
            Verdict::Allow => b"\x67verdict\x65allow",
        }
    }
}

/// The answer in the making. It begins as a denial without a reason. What does
/// not fit into MAX_OUTPUT, or has no CBOR, makes it a guest error, which the
/// host answers with the point's fail mode.
pub struct Decision {
    verdict: Verdict,
    value: Buffer,
    reasons: Buffer,
    reason_count: usize,
    open: usize, // where the text of the last reason begins, 0 when it is closed
    obligations: Buffer,
    obligation_count: usize,
}

impl Decision {
    const fn new() -> Decision {
        let (value, reasons, obligations) = (Buffer::new(), Buffer::new(), Buffer::new());
        Decision { verdict: Verdict::Deny, value, reasons, reason_count: 0, open: 0, obligations, obligation_count: 0 }
    }

    pub fn verdict(&mut self, verdict: Verdict) -> &mut Decision {
        self.verdict = verdict;
        self
    }
    pub fn deny(&mut self, code: &str) -> Sentence<'_> {
        self.verdict(Verdict::Deny).reason(code)
    }
    pub fn require_approval(&mut self, code: &str) -> Sentence<'_> {
        self.verdict(Verdict::RequireApproval).reason(code)
    }
    pub fn throttle(&mut self, code: &str) -> Sentence<'_> {
        self.verdict(Verdict::Throttle).reason(code)
    }
    pub fn transform(&mut self, code: &str) -> Sentence<'_> {
        self.verdict(Verdict::Transform).reason(code)
    }
    pub fn allow(&mut self, code: &str) -> Sentence<'_> {
        self.verdict(Verdict::Allow).reason(code)
    }

    /// Adds a reason. The code is for machines and stable; the text is what is said then.
    pub fn reason(&mut self, code: &str) -> Sentence<'_> {
        self.close();
        self.reason_count += 1;
        self.reasons.put(b"\xa2\x64code");
        self.reasons.text(code);
        self.reasons.put(b"\x64text\x78\x00");
        self.open = self.reasons.len;
        Sentence(&mut self.reasons)
    }

    /// Writes the length of the last reason's text, for which two bytes were left.
    fn close(&mut self) {
        let (from, len) = (self.open, self.reasons.len.saturating_sub(self.open));
        if from == 0 || self.reasons.full {
            return;
        }
        self.open = 0;
        match len {
            0..24 => self.reasons.shift(from, from - 1),
            24..256 => {}
            _ => self.reasons.shift(from, from + 1),
        }
        self.reasons.head_at(from - 2, TEXT, len as u64);
    }

    /// Adds something that the asker must do. An empty id is left out, and so are
    /// properties when none is set.
    pub fn obligation(&mut self, id: &str, type_name: &str, properties: impl FnOnce(&mut Map)) {
        self.obligation_count += 1;
        let out = &mut self.obligations;
        let start = out.len;
        out.put(&[MAP << 5 | 1]);
        let mut members = 1;
        if !id.is_empty() {
            out.put(b"\x62id");
            out.text(id);
            members += 1;
        }
        out.put(b"\x64type");
        out.text(type_name);
        let before = out.len;
        out.put(b"\x6aproperties");
        if Map::write(out, properties) == 0 {
            out.len = before;
        } else {
            members += 1;
        }
        out.patch(start, MAP << 5 | members);
    }

    /// Sets the answer's document: a text, a number, a bool, a [`Value`], `()`
    /// for null, [`map`] or [`list`].
    pub fn value(&mut self, value: impl Put) {
        self.value.len = 0;
        value.put(&mut self.value);
    }

    /// Writes the answer; 0 is a guest error.
    fn finish(&mut self) -> u64 {
        self.close();
        if self.value.full || self.reasons.full || self.obligations.full {
            return 0;
        }
        let mut out = Buffer::new();
        out.reserve((self.value.len + self.reasons.len + self.obligations.len + 80).min(MAX_OUTPUT));
        let members = 1 + (self.value.len > 0) as u8 + (self.reason_count > 0) as u8 + (self.obligation_count > 0) as u8;
        out.put(&[MAP << 5 | members]);
        if self.value.len > 0 {
            out.put(b"\x65value");
            out.put(self.value.bytes());
        }
        if self.reason_count > 0 {
            out.put(b"\x67reasons");
            out.head(LIST, self.reason_count as u64);
            out.put(self.reasons.bytes());
        }
        out.put(self.verdict.member());
        if self.obligation_count > 0 {
            out.put(b"\x6bobligations");
            out.head(LIST, self.obligation_count as u64);
            out.put(self.obligations.bytes());
        }
        if out.full { 0 } else { (out.at as u64) << 32 | out.len as u64 }
    }
}

/// The text of a reason, said in pieces.
pub struct Sentence<'a>(&'a mut Buffer);

impl Sentence<'_> {
    pub fn say(self, piece: impl Piece) -> Self {
        piece.say(self.0);
        self
    }
}

/// A text of one's own, said in pieces, such as a log message. It is gone after the call.
pub struct Text(Buffer);

impl Text {
    pub fn new() -> Text {
        Text(Buffer::new())
    }
    pub fn say(mut self, piece: impl Piece) -> Self {
        piece.say(&mut self.0);
        self
    }
    /// The text, cut where it would be longer than MAX_OUTPUT.
    pub fn as_str(&self) -> &str {
        // SAFETY: pieces are whole texts.
        unsafe { core::str::from_utf8_unchecked(self.0.bytes()) }
    }
}

/// What can be said: a text or a whole number in decimal.
pub trait Piece {
    #[doc(hidden)]
    fn say(self, out: &mut Buffer);
}

impl Piece for &str {
    fn say(self, out: &mut Buffer) {
        out.put(self.as_bytes());
    }
}

impl Piece for i64 {
    fn say(self, out: &mut Buffer) {
        let mut digits = [0; 20];
        let (mut at, mut left) = (20, self.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if self < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        out.put(&digits[at..]);
    }
}

impl Piece for usize {
    fn say(self, out: &mut Buffer) {
        (self as i64).say(out);
    }
}

impl Piece for i32 {
    fn say(self, out: &mut Buffer) {
        (self as i64).say(out);
    }
}

// ---- documents in the making ----

/// What can stand in a document.
pub trait Put {
    #[doc(hidden)]
    fn put(self, out: &mut Buffer);
}

impl Put for () {
    fn put(self, out: &mut Buffer) {
        out.put(&[0xf6]);
    }
}

impl Put for bool {
    fn put(self, out: &mut Buffer) {
        out.put(&[0xf4 + self as u8]);
    }
}

impl Put for i64 {
    fn put(self, out: &mut Buffer) {
        if self < 0 { out.head(NEGINT, !self as u64) } else { out.head(UINT, self as u64) }
    }
}

impl Put for i32 {
    fn put(self, out: &mut Buffer) {
        (self as i64).put(out);
    }
}

impl Put for usize {
    fn put(self, out: &mut Buffer) {
        (self as i64).put(out);
    }
}

/// A float that is no number has no CBOR here: a guest error.
impl Put for f64 {
    fn put(self, out: &mut Buffer) {
        out.full |= !self.is_finite();
        let b = self.to_bits().to_be_bytes();
        out.put(&[0xfb, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    }
}

impl Put for &str {
    fn put(self, out: &mut Buffer) {
        out.text(self);
    }
}

/// A copy of a value as it stands. An absent one is a guest error.
impl Put for Value<'_> {
    fn put(self, out: &mut Buffer) {
        if self.at == 0 {
            out.full = true;
            return;
        }
        let (mut from, mut at, mut left) = (self.at, self.at, 1);
        while left > 0 {
            let major = byte(at) >> 5;
            let (arg, body) = head(at);
            left -= 1;
            if matches!(byte(at), 0xf9 | 0xfa) {
                out.copy(from, at - from); // what lies before a float, which is widened
                float(at).put(out);
                from = body;
            }
            at = body;
            match major {
                TEXT => at += arg as usize,
                LIST => left += arg as usize,
                MAP => left += 2 * arg as usize,
                _ => {}
            }
        }
        out.copy(from, at - from);
    }
}

/// A map in a document: `map(|m| m.set("left", 3))`.
pub fn map<F: FnOnce(&mut Map)>(fill: F) -> MapOf<F> {
    MapOf(fill)
}

/// A list in a document: `list(|l| l.push("one"))`.
pub fn list<F: FnOnce(&mut List)>(fill: F) -> ListOf<F> {
    ListOf(fill)
}

pub struct MapOf<F>(F);

impl<F: FnOnce(&mut Map)> Put for MapOf<F> {
    fn put(self, out: &mut Buffer) {
        Map::write(out, self.0);
    }
}

pub struct ListOf<F>(F);

impl<F: FnOnce(&mut List)> Put for ListOf<F> {
    fn put(self, out: &mut Buffer) {
        let start = out.len;
        out.put(&[0]);
        let mut l = List { out, count: 0 };
        (self.0)(&mut l);
        let count = l.count;
        out.close(start, LIST, count);
    }
}

/// A list in the making.
pub struct List<'a> {
    out: &'a mut Buffer,
    count: usize,
}

impl List<'_> {
    pub fn push(&mut self, item: impl Put) {
        self.count += 1;
        item.put(self.out);
    }
}

/// A map in the making. Members may be set in any order, each once: a key that is
/// set twice is a guest error.
pub struct Map<'a> {
    out: &'a mut Buffer,
    start: usize, // of the first member
    last: usize,  // of the member with the last key
    count: usize,
}

impl Map<'_> {
    pub fn set(&mut self, key: &str, value: impl Put) {
        let at = self.out.len;
        self.out.text(key);
        value.put(self.out);
        self.count += 1;
        if self.count > 1 && !self.out.full {
            self.sort(at);
        } else {
            self.last = at;
        }
    }

    /// Moves the member at `at`, behind all others, to where its key belongs.
    fn sort(&mut self, at: usize) {
        let base = self.out.at;
        if key_order(base + self.last, base + at).is_lt() {
            self.last = at;
            return;
        }
        let mut to = base + self.start;
        while key_order(to, base + at).is_lt() {
            to = skip(skip(to));
        }
        if key_order(to, base + at).is_eq() {
            self.out.full = true;
            return;
        }
        let size = self.out.len - at;
        self.last += size;
        // SAFETY: both blocks lie in the buffer, or in the room that was reserved behind it.
        self.out.reserve(size);
        if self.out.full {
            return;
        }
        unsafe {
            let (to, from) = ((self.out.at + to - base) as *mut u8, (self.out.at + at) as *mut u8);
            let moved = from as usize - to as usize + size;
            core::ptr::copy(to, to.add(size), moved);
            core::ptr::copy(from.add(size), to, size);
        }
    }

    /// Writes a map and returns how many members it has.
    fn write(out: &mut Buffer, fill: impl FnOnce(&mut Map)) -> usize {
        let start = out.len;
        out.put(&[0]);
        let mut m = Map { start: start + 1, last: start + 1, count: 0, out };
        fill(&mut m);
        let count = m.count;
        out.close(start, MAP, count);
        count
    }
}

/// The order of two keys: by their length, then by their bytes.
fn key_order(a: usize, b: usize) -> core::cmp::Ordering {
    let ((a_len, a), (b_len, b)) = (head(a), head(b));
    let mut order = a_len.cmp(&b_len);
    let mut i = 0;
    while order.is_eq() && i < a_len as usize {
        order = byte(a + i).cmp(&byte(b + i));
        i += 1;
    }
    order
}

/// Bytes in the arena, at most MAX_OUTPUT of them; what does not fit makes it full.
#[doc(hidden)]
pub struct Buffer {
    at: usize,
    len: usize,
    room: usize,
    full: bool,
}

impl Buffer {
    const fn new() -> Buffer {
        Buffer { at: 0, len: 0, room: 0, full: false }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: len bytes from at on are the buffer's and written.
        if self.len == 0 { &[] } else { unsafe { core::slice::from_raw_parts(self.at as *const u8, self.len) } }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.copy(bytes.as_ptr() as usize, bytes.len());
    }

    fn copy(&mut self, from: usize, len: usize) {
        if self.room - self.len < len {
            self.reserve(len);
        }
        if self.full {
            return;
        }
        // SAFETY: the room is the buffer's own, and nobody reads from there.
        unsafe { core::ptr::copy_nonoverlapping(from as *const u8, (self.at + self.len) as *mut u8, len) }
        self.len += len;
    }

    /// Makes room for len more bytes.
    #[cold]
    fn reserve(&mut self, len: usize) {
        if len > MAX_OUTPUT - self.len {
            self.full = true;
        }
        if self.full || self.room - self.len >= len {
            return;
        }
        let room = (self.len + len).max(2 * self.room).max(256);
        let at = grab(room, 1);
        if at == 0 {
            self.full = true;
            return;
        }
        // SAFETY: the new block is fresh and longer than what is copied.
        unsafe { core::ptr::copy_nonoverlapping(self.at as *const u8, at as *mut u8, self.len) }
        (self.at, self.room) = (at, room);
    }

    fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.put(text.as_bytes());
    }

    fn head(&mut self, major: u8, arg: u64) {
        if arg < 24 {
            return self.put(&[major << 5 | arg as u8]);
        }
        let (bytes, size) = head_bytes(major, arg);
        self.put(&bytes[..size]);
    }

    /// Overwrites one byte.
    fn patch(&mut self, at: usize, value: u8) {
        if !self.full && at < self.len {
            // SAFETY: it lies within what was written.
            unsafe { *((self.at + at) as *mut u8) = value }
        }
    }

    /// Overwrites what was left for a head.
    fn head_at(&mut self, at: usize, major: u8, arg: u64) {
        let (bytes, size) = head_bytes(major, arg);
        for (i, b) in bytes[..size].iter().enumerate() {
            self.patch(at + i, *b);
        }
    }

    /// Moves all from `from` on to `to`.
    fn shift(&mut self, from: usize, to: usize) {
        self.reserve(to.saturating_sub(from));
        if self.full {
            return;
        }
        // SAFETY: the room was just made.
        unsafe { core::ptr::copy((self.at + from) as *const u8, (self.at + to) as *mut u8, self.len - from) }
        self.len = self.len + to - from;
    }

    /// Writes the head of a list or map that began at `start`, where one byte was left for it.
    fn close(&mut self, start: usize, major: u8, count: usize) {
        if self.full {
            return;
        }
        let size = head_bytes(major, count as u64).1;
        if size > 1 {
            self.shift(start + 1, start + size);
        }
        self.head_at(start, major, count as u64);
    }
}

fn head_bytes(major: u8, arg: u64) -> ([u8; 9], usize) {
    let (info, width) = match arg {
        0..24 => (arg as u8, 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    let mut bytes = [0; 9];
    bytes[0] = major << 5 | info;
    for i in 0..width {
        bytes[1 + i] = (arg >> (8 * (width - 1 - i))) as u8;
    }
    (bytes, 1 + width)
}

// ---- the host ----

#[link(wasm_import_module = "holdfast_v1")]
unsafe extern "C" {
    #[link_name = "log"]
    safe fn host_log(level: u32, at: usize, len: usize);
    #[link_name = "now"]
    safe fn host_now() -> i64;
    #[link_name = "match"]
    safe fn host_match(pattern: u32, at: usize, len: usize) -> i32;
}

#[derive(Clone, Copy)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Hands the host a message, which bounds it and keeps it beside the record.
pub fn log(level: Level, text: &str) {
    host_log(level as u32, text.as_ptr() as usize, text.len());
}

/// The request's instant in nanoseconds since 1970. It does not move while a decision is made.
pub fn now() -> i64 {
    host_now()
}

/// Whether the manifest's pattern of that number, from 0, matches the text. The
/// host runs it in time linear in the text. There is no such pattern: false.
pub fn matches(pattern: u32, text: &str) -> bool {
    host_match(pattern, text.as_ptr() as usize, text.len()) == 1
}

// ---- memory ----

/// All memory behind the module's own is an arena: first what configuring left,
/// then the request, then what the call makes. Nothing is freed but the last
/// block, and each call begins where configuring ended.
struct Arena;

#[global_allocator]
static ARENA: Arena = Arena;

static mut TOP: usize = 0; // the first free byte, 0 before the first use
static mut FLOOR: usize = 0; // where each call begins

/// How many bytes behind a block are memory, so that reading a word at its end is no trap.
const SLACK: usize = 16;

/// Takes size bytes, at an address that is a multiple of align; 0 when memory is at its end.
fn grab(size: usize, align: usize) -> usize {
    // SAFETY (also below): a guest has one thread, and nothing here calls back.
    let at = (top() + align - 1) & !(align - 1);
    let Some(end) = at.checked_add(size).filter(|end| has(*end)) else { return 0 };
    unsafe { TOP = end };
    at
}

fn top() -> usize {
    unsafe extern "C" {
        static __heap_base: u8;
    }
    let top = unsafe { TOP };
    if top == 0 { (&raw const __heap_base) as usize } else { top }
}

/// Whether memory reaches to `end` and SLACK beyond, or could be grown to.
fn has(end: usize) -> bool {
    use core::arch::wasm32::{memory_grow, memory_size};
    const PAGE: usize = 64 << 10;
    let pages = end / PAGE + if end % PAGE + SLACK > PAGE { 2 } else { 1 };
    let own = memory_size(0);
    pages <= own || memory_grow(0, pages - own) != usize::MAX
}

unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grab(layout.size(), layout.align()) as *mut u8
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if at as usize + layout.size() == top() {
            unsafe { TOP = at as usize };
        }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if at as usize + layout.size() == top() {
            let Some(end) = (at as usize).checked_add(size).filter(|end| has(*end)) else { return core::ptr::null_mut() };
            unsafe { TOP = end };
            return at;
        }
        let to = grab(size, layout.align()) as *mut u8;
        if !to.is_null() {
            unsafe { core::ptr::copy_nonoverlapping(at, to, layout.size().min(size)) };
        }
        to
    }
}

// ---- the contract ----

#[doc(hidden)]
pub mod contract {
    use super::*;

    /// Begins a call: all that the last one took is free again.
    pub fn alloc(len: usize) -> usize {
        unsafe {
            if FLOOR == 0 {
                FLOOR = (top() + 15) & !15;
            }
            TOP = FLOOR;
        }
        grab(len, 1)
    }

    /// The document of len bytes in the input buffer, if it is one.
    fn input<'a>(at: usize, len: usize) -> Option<Value<'a>> {
        let (floor, top) = unsafe { (FLOOR, TOP) };
        if floor == 0 || at != floor || len > top - floor {
            return None;
        }
        (check(at, at + len, 1, false, 0) == at + len).then(|| Value::new(at))
    }

    pub fn init<P: Policy>(policy: &mut Option<P>, at: usize, len: usize) -> i32 {
        let Some(document) = input(at, len) else { return 1 };
        match P::configure(document.get("params"), document.get("data")) {
            Ok(configured) => *policy = Some(configured),
            Err(text) => {
                log(Level::Error, text);
                return 1;
            }
        }
        let floor = (top() + 15) & !15;
        unsafe { FLOOR = floor };
        if has(floor + HEADROOM) { 0 } else { 1 }
    }

    pub fn decide<P: Policy>(policy: &mut Option<P>, at: usize, len: usize) -> u64 {
        let Some(request) = input(at, len) else { return 0 };
        if let Some(policy) = policy {
            let mut answer = Decision::new();
            policy.decide(Request(request), &mut answer);
            return answer.finish();
        }
        0
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        core::arch::wasm32::unreachable()
    }
}

/// Makes a type the module's policy: `holdfast::export!(OnlyAlice);`.
macro_rules! export {
    ($policy:ty) => {
        static mut POLICY: Option<$policy> = None;

        #[unsafe(no_mangle)]
        extern "C" fn holdfast_abi_v1() -> u32 {
            0
        }
        #[unsafe(no_mangle)]
        extern "C" fn holdfast_alloc(len: usize) -> usize {
            $crate::holdfast::contract::alloc(len)
        }
        #[unsafe(no_mangle)]
        extern "C" fn holdfast_init(at: usize, len: usize) -> i32 {
            // SAFETY: a guest has one thread, and the host does not call it while it runs.
            $crate::holdfast::contract::init(unsafe { &mut *(&raw mut POLICY) }, at, len)
        }
        #[unsafe(no_mangle)]
        extern "C" fn holdfast_decide(at: usize, len: usize) -> u64 {
            // SAFETY: as above.
            $crate::holdfast::contract::decide(unsafe { &mut *(&raw mut POLICY) }, at, len)
        }
    };
}
pub(crate) use export;
