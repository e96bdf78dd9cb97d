// What a holdfast_v1 guest in AssemblyScript is written against: values of a
// request, the answer, and the contract's exports. Nothing is allocated, so that
// the stub runtime, which frees nothing, suffices.

const MAX_DEPTH: u32 = 40;
const INPUT_BYTES: u32 = 32 << 10;
const KEPT_BYTES: u32 = 4 << 10;
const LINE_BYTES: u32 = 1024;
const OUTPUT_BYTES: u32 = LINE_BYTES + 256;

// CBOR's major types.
const UINT: u8 = 0;
const NEGINT: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

export const enum Kind { Absent, Null, Bool, Int, Float, Text, List, Map }

/** Where a value begins in a CBOR document that was checked before. 0 is absent,
 * and every function of an absent value, or of one of another kind, returns the
 * zero of its result. */
export type Value = usize;

const input = memory.data(INPUT_BYTES);
const kept = memory.data(KEPT_BYTES);
let keptLength: u32 = 0;

// -- reading --

// The argument of the head that headSize was called for last: no tuple, no allocation.
let arg: u64 = 0;

/** The bytes of the head at p, 0 when it is malformed or does not end before end. */
function headSize(p: usize, end: usize): u32 {
  if (p >= end) return 0;
  const info = load<u8>(p) & 31;
  arg = info;
  if (info < 24) return 1;
  if (info > 27) return 0; // reserved, or an indefinite length
  const n: u32 = 1 << (info - 24);
  if (<u32>(end - p) <= n) return 0;
  arg = 0;
  for (let i: u32 = 1; i <= n; i++) arg = arg << 8 | load<u8>(p + i);
  return n + 1;
}

/** The head's size in a checked document. */
function head(p: usize): u32 { return headSize(p, usize.MAX_VALUE); }

function major(p: usize): u8 { return load<u8>(p) >> 5; }

/** Where the item at p ends, 0 when it is not what Holdfast writes: definite
 * lengths, text keys, no tags, no byte strings, MAX_DEPTH levels. */
function check(p: usize, end: usize, depth: u32): usize {
  const size = headSize(p, end);
  if (size == 0 || depth > MAX_DEPTH) return 0;
  const body = p + size;
  switch (major(p)) {
    case UINT:
    case NEGINT: return arg <= <u64>i64.MAX_VALUE ? body : 0;
    case TEXT: return arg <= <u64>(end - body) ? body + <usize>arg : 0;
    case LIST: return checkItems(body, end, arg, false, depth + 1);
    case MAP: return checkItems(body, end, arg, true, depth + 1);
    case SIMPLE: return (size == 1 ? arg >= 20 && arg <= 22 : size > 2) ? body : 0;
    default: return 0;
  }
}

function checkItems(p: usize, end: usize, n: u64, pairs: bool, depth: u32): usize {
  if (n > <u64>(end - p)) return 0;
  for (; p != 0 && n > 0; n--) {
    if (pairs) {
      if (p >= end || major(p) != TEXT) return 0;
      p = check(p, end, depth);
    }
    if (p != 0) p = check(p, end, depth);
  }
  return p;
}

function parse(p: usize, length: u32): Value {
  return check(p, p + length, 0) == p + length ? p : 0;
}

function skip(p: usize): usize {
  for (let left: u64 = 1; left > 0; left--) {
    const kind = major(p);
    p += head(p);
    if (kind == TEXT) p += <usize>arg;
    if (kind == LIST) left += arg;
    if (kind == MAP) left += 2 * arg;
  }
  return p;
}

export function kindOf(v: Value): Kind {
  if (v == 0) return Kind.Absent;
  const first = load<u8>(v);
  switch (first >> 5) {
    case UINT:
    case NEGINT: return Kind.Int;
    case TEXT: return Kind.Text;
    case LIST: return Kind.List;
    case MAP: return Kind.Map;
  }
  if (first >= 0xf9) return Kind.Float;
  return first == 0xf6 ? Kind.Null : Kind.Bool;
}

export function isTrue(v: Value): bool { return v != 0 && load<u8>(v) == 0xf5; }

export function int(v: Value): i64 {
  if (kindOf(v) != Kind.Int) return 0;
  head(v);
  return major(v) == NEGINT ? -1 - <i64>arg : <i64>arg;
}

/** Bytes of a text, items of a list or members of a map. */
export function length(v: Value): u32 {
  if (kindOf(v) < Kind.Text) return 0;
  head(v);
  return <u32>arg;
}

/** Where the bytes of a text begin. */
export function text(v: Value): usize { return kindOf(v) == Kind.Text ? v + head(v) : 0; }

/** The first item of a list; next returns the one behind an item. There are length of them. */
export function first(list: Value): Value { return kindOf(list) == Kind.List ? list + head(list) : 0; }

export function next(item: Value): Value { return item == 0 ? 0 : skip(item); }

/** The member of a map; the key is ASCII. */
export function get(map: Value, key: string): Value {
  if (kindOf(map) != Kind.Map) return 0;
  let p = map + head(map);
  for (let n = arg; n > 0; n--) {
    const value = skip(p);
    if (is(p, key)) return value;
    p = skip(value);
  }
  return 0;
}

/** Whether v is a text that says s, which is ASCII. */
export function is(v: Value, s: string): bool {
  const n = length(v), at = text(v);
  if (at == 0 || n != <u32>s.length) return false;
  for (let i: u32 = 0; i < n; i++)
    if (load<u8>(at + i) != load<u16>(changetype<usize>(s) + 2 * i)) return false;
  return true;
}

/** Whether two texts are equal. */
export function same(a: Value, b: Value): bool {
  const n = length(a);
  return n == length(b) && memory.compare(text(a), text(b), n) == 0;
}

/** A copy that outlives the call, for configuration; absent when there is no room. */
export function keep(v: Value): Value {
  if (v == 0) return 0;
  const size = <u32>(skip(v) - v);
  if (size > KEPT_BYTES - keptLength) return 0;
  const to = kept + keptLength;
  memory.copy(to, v, size);
  keptLength += size;
  return to;
}

// -- writing --

/** Bytes up to a bound. What does not fit makes the decision a guest error. */
class Buffer {
  length: u32 = 0;
  full: bool = false;
  constructor(public at: usize, public bound: u32) {}

  add(from: usize, n: u32): void {
    this.full = this.full || n > this.bound - this.length;
    if (this.full) return;
    memory.copy(this.at + this.length, from, n);
    this.length += n;
  }

  byte(b: u32): void {
    this.full = this.full || this.length == this.bound;
    if (!this.full) store<u8>(this.at + this.length++, b);
  }

  /** Adds ASCII. */
  say(s: string): void {
    for (let i = 0; i < s.length; i++) this.byte(load<u16>(changetype<usize>(s) + 2 * i));
  }

  head(major: u8, n: u32): void {
    if (n < 24) return this.byte(major << 5 | n);
    if (n < 256) {
      this.byte(major << 5 | 24);
    } else {
      this.byte(major << 5 | 25);
      this.byte(n >> 8);
    }
    this.byte(n);
  }

  string(s: string): void {
    this.head(TEXT, s.length);
    this.say(s);
  }
}

const line = new Buffer(memory.data(LINE_BYTES), LINE_BYTES);
const output = new Buffer(memory.data(OUTPUT_BYTES), OUTPUT_BYTES);
const digits = memory.data(20);
let verdict = "";
let code = "";

/** Adds ASCII to the reason's text. */
export function say(s: string): void { line.say(s); }

/** Adds bytes to the reason's text. */
export function sayText(at: usize, n: u32): void { line.add(at, n); }

/** Adds a number to the reason's text. */
export function sayInt(n: i64): void {
  let p = digits + 20;
  let left = n < 0 ? <u64>-n : <u64>n;
  do {
    store<u8>(--p, 48 + <u8>(left % 10));
    left /= 10;
  } while (left != 0);
  if (n < 0) line.byte(45);
  line.add(p, <u32>(digits + 20 - p));
}

/** Sets the verdict - deny, require_approval, throttle, transform or allow - and
 * the code of the one reason. Without it the decision is a denial. */
export function decide(v: string, c: string): void {
  verdict = v;
  code = c;
}

function writeDecision(): void {
  output.length = 0;
  output.full = line.full;
  output.head(MAP, 2);
  output.string("verdict");
  output.string(verdict);
  output.string("reasons");
  output.head(LIST, 1);
  output.head(MAP, 2);
  output.string("code");
  output.string(code);
  output.string("text");
  output.head(TEXT, line.length);
  output.add(line.at, line.length);
}

// -- the contract --

export function holdfast_abi_v1(): i32 { return 0; }

export function holdfast_alloc(n: u32): usize { return n <= INPUT_BYTES ? input : 0; }

/** What holdfast_init returns: 0 when the policy accepts its parameters and data. */
export function configured(at: usize, n: u32, policy: (params: Value, data: Value) => bool): i32 {
  const doc = parse(at, n);
  return doc != 0 && policy(get(doc, "params"), get(doc, "data")) ? 0 : 1;
}

/** What holdfast_decide returns: where the policy's decision lies. */
export function decided(at: usize, n: u32, policy: (request: Value) => void): u64 {
  const request = parse(at, n);
  if (request == 0) return 0;
  decide("deny", "");
  line.length = 0;
  line.full = false;
  policy(request);
  writeDecision();
  return output.full ? 0 : <u64>output.at << 32 | output.length;
}
