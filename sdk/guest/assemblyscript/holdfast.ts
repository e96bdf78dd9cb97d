// What a Holdfast policy in AssemblyScript is written against: the request as
// values, the decision in the making, and version 1 of the guest contract.
//
//   import { Decision, Policy, Request, Value, register } from "./holdfast";
//   export { holdfast_abi_v1, holdfast_alloc, holdfast_init, holdfast_decide } from "./holdfast";
//
//   class OnlyAlice extends Policy {
//     decide(request: Request, answer: Decision): void {
//       const id = request.subject.id;
//       if (id.is("alice")) answer.allow("alice").say("it is alice");
//       else answer.deny("not_alice").say(id).say(" is not alice");
//     }
//   }
//
//   register(new OnlyAlice());
//
// It is for the runtime `stub`, which frees nothing: each call begins with the
// memory as configuring left it.

/** How deep a request may nest. */
export const MAX_DEPTH: u32 = 40;
/** How long a request may be. */
export const MAX_INPUT: u32 = 512 << 10;
/** How long an answer may be; a longer one is a guest error. */
export const MAX_OUTPUT: u32 = 64 << 10;
/** What parameters and data together may take. */
const MAX_INIT: u32 = 8 << 20;
/** The room that every call has without memory growing, which would cost the host an instance. */
const HEADROOM: usize = 16 << 10;

// CBOR's major types.
const UINT: u8 = 0;
const NEGINT: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

/** What a module registers with `register`. */
export abstract class Policy {
  /** Is called once, before the first decision, with the package's parameters and
   * data, either of which may be absent. They stay valid for ever, so that the
   * policy may keep any value of them. A text is an error: it is logged, and the
   * module is not loaded. */
  configure(params: Value, data: Value): string | null { return null; }
  /** Answers one request. `answer` is a denial without a reason. Nothing that is
   * kept here is there in the next call: the host restores the memory. */
  abstract decide(request: Request, answer: Decision): void;
}

// ---- values ----

export enum Kind { Absent, Null, Bool, Int, Float, Text, List, Map }

/** What `Value.time` is for what is not a time. */
export const NO_TIME: i64 = i64.MIN_VALUE;

// The argument of the head that headSize was called for last: no tuple, no allocation.
let argument: u64 = 0;

/** The bytes of the head at p. */
// @ts-ignore: decorator
@inline
function headSize(p: usize): u32 {
  const info: u32 = load<u8>(p) & 31;
  if (info < 24) {
    argument = info;
    return 1;
  }
  return longHeadSize(p, info);
}

function longHeadSize(p: usize, info: u32): u32 {
  const bytes = bswap<u64>(load<u64>(p + 1));
  const width: u32 = 1 << (info - 24);
  argument = width == 8 ? bytes : bytes >> (64 - 8 * width);
  return 1 + width;
}

// @ts-ignore: decorator
@inline
function majorOf(p: usize): u8 { return load<u8>(p) >> 5; }

/** Where the last of `count` items at p ends, or of as many pairs; 0 when one is
 * not what Holdfast writes: definite lengths, text keys, UTF-8, no tags, no byte
 * strings, integers of 64 bits with their sign, MAX_DEPTH levels, and all of it
 * before `end`. A head is compared with the end after it was read: behind every
 * block there is memory. */
function check(p: usize, end: usize, count: u64, pairs: bool, depth: u32): usize {
  if (count > <u64>(end - p) || depth > MAX_DEPTH && count > 0) return 0;
  for (let left = pairs ? 2 * count : count; left > 0; left--) {
    if (p >= end) return 0;
    const major = majorOf(p);
    const info: u32 = load<u8>(p) & 31;
    if (info > 27 || pairs && (left & 1) == 0 && major != TEXT) return 0;
    p += headSize(p);
    if (p > end) return 0;
    if (major == TEXT) {
      if (argument > <u64>(end - p) || !isUTF8(p, <u32>argument)) return 0;
      p += <usize>argument;
    } else if (major <= NEGINT) {
      if (argument > <u64>i64.MAX_VALUE) return 0;
    } else if (major == SIMPLE) {
      if (info <= 24 && (info < 20 || info > 22)) return 0;
    } else if (major == LIST || major == MAP) {
      p = check(p, end, argument, major == MAP, depth + 1);
      if (p == 0) return 0;
    } else {
      return 0;
    }
  }
  return p;
}

function isUTF8(p: usize, n: u32): bool {
  const end = p + n;
  for (; end - p >= 32; p += 32) {
    if (((load<u64>(p) | load<u64>(p, 8) | load<u64>(p, 16) | load<u64>(p, 24)) & 0x8080808080808080) != 0) return isWideUTF8(p, end);
  }
  for (; end - p >= 8; p += 8) {
    if ((load<u64>(p) & 0x8080808080808080) != 0) return isWideUTF8(p, end);
  }
  // The rest, without what lies behind it.
  const behind: u64 = u64.MAX_VALUE << (8 * (end - p));
  return (load<u64>(p) & 0x8080808080808080 & ~behind) == 0 || isWideUTF8(p, end);
}

function isWideUTF8(p: usize, end: usize): bool {
  while (p < end) {
    const b: u32 = load<u8>(p++);
    if (b < 0x80) continue;
    // What may follow first keeps out long forms, surrogates and what is beyond U+10FFFF.
    const more: u32 = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : 1;
    if (b < 0xc2 || b > 0xf4 || <usize>more > end - p) return false;
    const next: u32 = load<u8>(p);
    const low: u32 = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    const high: u32 = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    if (next < low || next > high) return false;
    for (let i: u32 = 1; i < more; i++) {
      if ((load<u8>(p + i) & 0xc0) != 0x80) return false;
    }
    p += more;
  }
  return true;
}

/** Where the item at p ends. */
function skip(p: usize): usize {
  for (let left: u32 = 1; left > 0; left--) {
    const major = majorOf(p);
    p += headSize(p);
    if (major >= TEXT && major != SIMPLE) {
      if (major == TEXT) p += <usize>argument;
      else left += major == LIST ? <u32>argument : 2 * <u32>argument;
    }
  }
  return p;
}

/** Whether n bytes at p are what s says. */
function says(p: usize, n: u32, s: string): bool {
  if (n == <u32>s.length) { // of as many bytes as letters: ASCII, or not equal
    for (let i: u32 = 0; i < n; i++) {
      if (load<u8>(p + i) != load<u16>(changetype<usize>(s) + 2 * i)) return false;
    }
    return true;
  }
  if (n < <u32>s.length || !isWide(s) || n != <u32>String.UTF8.byteLength(s)) return false;
  return memory.compare(p, changetype<usize>(String.UTF8.encode(s)), n) == 0;
}

/** Whether a string has more than ASCII. */
function isWide(s: string): bool {
  for (let i = 0; i < s.length; i++) {
    if (load<u16>(changetype<usize>(s) + 2 * i) > 0x7f) return true;
  }
  return false;
}

function lower(c: u32): u32 { return c - 65 < 26 ? c | 32 : c; }

/** A view into a document that was checked when it came in: the address of an
 * item, 0 when it is absent. It copies nothing. What is asked of an absent value,
 * or of one of another kind, is 0, false, empty or absent. */
// @ts-ignore: decorator
@unmanaged
export class Value {
  static get absent(): Value { return changetype<Value>(0); }

  private get at(): usize { return changetype<usize>(this); }

  get kind(): Kind {
    if (this.at == 0) return Kind.Absent;
    const first: u32 = load<u8>(this.at);
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

  /** Whether the value is there; null is. */
  get exists(): bool { return this.at != 0; }
  get isNull(): bool { return this.kind == Kind.Null; }
  get isBool(): bool { return this.kind == Kind.Bool; }
  /** Whether it is a whole number. 1.0 is none: it is a float. */
  get isInt(): bool { return this.at != 0 && majorOf(this.at) <= NEGINT; }
  get isFloat(): bool { return this.kind == Kind.Float; }
  get isText(): bool { return this.at != 0 && majorOf(this.at) == TEXT; }
  get isList(): bool { return this.at != 0 && majorOf(this.at) == LIST; }
  get isMap(): bool { return this.at != 0 && majorOf(this.at) == MAP; }

  get bool(): bool { return this.at != 0 && load<u8>(this.at) == 0xf5; }

  get int(): i64 {
    if (!this.isInt) return 0;
    headSize(this.at);
    return majorOf(this.at) == NEGINT ? ~(<i64>argument) : <i64>argument;
  }

  /** A number of either kind; whole numbers beyond 2^53 are rounded. */
  get float(): f64 { return this.kind == Kind.Float ? floatAt(this.at) : <f64>this.int; }

  /** A copy of a text as a string; `is` and `same` compare without one. */
  get text(): string {
    if (!this.isText) return "";
    const size = headSize(this.at);
    return String.UTF8.decodeUnsafe(this.at + size, <usize>argument);
  }

  /** A text in RFC 3339 as nanoseconds since 1970, else NO_TIME; see `rfc3339`. */
  get time(): i64 {
    if (!this.isText) return NO_TIME;
    const size = headSize(this.at);
    return rfc3339(this.at + size, <u32>argument);
  }

  /** The bytes of a text, items of a list or members of a map. */
  get length(): i32 {
    if (this.at == 0 || majorOf(this.at) < TEXT || majorOf(this.at) == SIMPLE) return 0;
    headSize(this.at);
    return <i32>argument;
  }

  /** Whether the value is this text. */
  is(text: string): bool {
    if (!this.isText) return false;
    const size = headSize(this.at);
    return says(this.at + size, <u32>argument, text);
  }

  /** Whether both are texts, and equal. */
  same(other: Value): bool {
    if (!this.isText || !other.isText) return false;
    const n = this.length;
    return n == other.length && memory.compare(this.bytes, other.bytes, n) == 0;
  }

  /** Whether both are texts, and equal but for the case of ASCII letters. */
  sameIgnoringCase(other: Value): bool {
    const n = this.length;
    if (!this.isText || !other.isText || n != other.length) return false;
    const a = this.bytes, b = other.bytes;
    for (let i = 0; i < n; i++) {
      if (lower(load<u8>(a + i)) != lower(load<u8>(b + i))) return false;
    }
    return true;
  }

  /** Whether the value is a text that begins so. */
  startsWith(text: string): bool {
    const wanted = String.UTF8.encode(text), n = wanted.byteLength;
    return this.isText && this.length >= n && memory.compare(this.bytes, changetype<usize>(wanted), n) == 0;
  }

  /** Where the bytes of a text, the items of a list or the members of a map begin. */
  get bytes(): usize { return this.at + headSize(this.at); }

  /** A map's member. */
  get(key: string): Value {
    if (!this.isMap) return Value.absent;
    let p = this.bytes;
    const wide = isWide(key), length = <u32>key.length;
    for (let n = <u32>argument; n > 0; n--) {
      const name = p + headSize(p), size = <u32>argument;
      p = name + size;
      if ((size == length || wide) && says(name, size, key)) return changetype<Value>(p);
      p = skip(p);
    }
    return Value.absent;
  }

  /** The member of a map that a text names. */
  find(key: Value): Value {
    if (!this.isMap || !key.isText) return Value.absent;
    const wanted = key.bytes, length = <u32>argument;
    let p = this.bytes;
    for (let n = <u32>argument; n > 0; n--) {
      const name = p + headSize(p), size = <u32>argument;
      p = name + size;
      if (size == length && memory.compare(name, wanted, size) == 0) return changetype<Value>(p);
      p = skip(p);
    }
    return Value.absent;
  }

  /** The items of a list: `for (const i = v.items; i.next();) { i.value ... }`. */
  get items(): Items { return new Items(this.isList ? this.bytes : 0, this.isList ? this.length : 0); }

  /** The members of a map, shorter keys first and keys of one length by their bytes:
   * `for (const m = v.members; m.next();) { m.key ... m.value ... }`. */
  get members(): Members { return new Members(this.isMap ? this.bytes : 0, this.isMap ? this.length : 0); }
}

@final
export class Items {
  value: Value = Value.absent;
  constructor(private at: usize, private left: u32) {}

  next(): bool {
    if (this.left == 0) return false;
    this.left--;
    this.value = changetype<Value>(this.at);
    this.at = skip(this.at);
    return true;
  }
}

@final
export class Members {
  key: Value = Value.absent;
  value: Value = Value.absent;
  constructor(private at: usize, private left: u32) {}

  next(): bool {
    if (this.left == 0) return false;
    this.left--;
    this.key = changetype<Value>(this.at);
    this.value = changetype<Value>(skip(this.at));
    this.at = skip(changetype<usize>(this.value));
    return true;
  }
}

/** The float at p, of any width. */
function floatAt(p: usize): f64 {
  headSize(p);
  const first = load<u8>(p);
  if (first == 0xf9) return half(<u32>argument);
  return first == 0xfa ? <f64>reinterpret<f32>(<u32>argument) : reinterpret<f64>(argument);
}

/** Widens an IEEE 754 binary16 by its bits. */
function half(h: u32): f64 {
  const exponent: u64 = h >> 10 & 31, fraction: u64 = h & 1023;
  let magnitude = <f64>fraction / 16777216.0;
  if (exponent == 31) magnitude = reinterpret<f64>(0x7ff << 52 | fraction << 42);
  else if (exponent > 0) magnitude = reinterpret<f64>(exponent + 1008 << 52 | fraction << 42);
  return h >> 15 == 1 ? -magnitude : magnitude;
}

// ---- the request ----

/** What a workload asks at a decision point. All of it is there as a value; the
 * getters name the members that every request has. */
// @ts-ignore: decorator
@unmanaged
export class Request extends Value {
  get point(): Value { return this.get("point"); }
  /** The asker's request id. */
  get id(): Value { return this.get("id"); }
  get subject(): Entity { return changetype<Entity>(this.get("subject")); }
  /** The name of what is to be done. */
  get action(): Value { return this.get("action").get("name"); }
  get resource(): Entity { return changetype<Entity>(this.get("resource")); }
  get context(): Value { return this.get("context"); }
  /** The bare input document. */
  get document(): Value { return this.get("document"); }
  /** Whether the asker said that it can perform obligations of the type. */
  performs(obligation: string): bool {
    for (const types = this.get("supported_obligations").items; types.next();) {
      if (types.value.is(obligation)) return true;
    }
    return false;
  }
}

/** A subject or a resource. */
// @ts-ignore: decorator
@unmanaged
export class Entity extends Value {
  get type(): Value { return this.get("type"); }
  get id(): Value { return this.get("id"); }
  property(name: string): Value { return this.get("properties").get(name); }
}

// ---- time ----

/** The instant of n bytes at p in RFC 3339, in nanoseconds since 1970:
 * `YYYY-MM-DD`, `T` or `t`, `HH:MM:SS`, optionally `.` and 1 to 9 digits, then
 * `Z`, `z` or an offset; years 1970 to 2200, no leap seconds. Else NO_TIME. */
export function rfc3339(p: usize, n: u32): i64 {
  if (n < 20 || load<u8>(p + 4) != 45 || load<u8>(p + 7) != 45 || (load<u8>(p + 10) | 32) != 116 || load<u8>(p + 13) != 58 || load<u8>(p + 16) != 58) return NO_TIME;
  const century = two(p), years = two(p + 2), month = two(p + 5), day = two(p + 8), hour = two(p + 11), minute = two(p + 14), second = two(p + 17);
  if ((century | years | month | day | hour | minute | second) < 0) return NO_TIME;
  const year = 100 * century + years;
  if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > daysOf(year, month) || hour > 23 || minute > 59 || second > 59) return NO_TIME;
  let at = p + 19, nanos: i64 = 0;
  const end = p + n;
  if (load<u8>(at) == 46) {
    const first = ++at;
    for (let unit: i64 = 100_000_000; at < end && load<u8>(at) - 48 < 10; unit /= 10, at++) nanos += unit * (load<u8>(at) - 48);
    if (at == first || at - first > 9) return NO_TIME;
  }
  const ahead = offset(at, end);
  if (ahead == i32.MIN_VALUE) return NO_TIME;
  const minutes = (daysSince1970(year, month, day) * 24 + hour) * 60 + minute - ahead;
  return (<i64>minutes * 60 + second) * 1_000_000_000 + nanos;
}

/** Two digits, -1 when they are none. */
function two(p: usize): i32 {
  const tens: u32 = <u32>load<u8>(p) - 48, ones: u32 = <u32>load<u8>(p + 1) - 48;
  return tens < 10 && ones < 10 ? 10 * tens + ones : -1;
}

function isLeap(year: i32): bool { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

function daysOf(year: i32, month: i32): i32 {
  if (month == 2) return isLeap(year) ? 29 : 28;
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

function daysSince1970(year: i32, month: i32, day: i32): i32 {
  const before = year - 1;
  let days = (year - 1970) * 365 + before / 4 - before / 100 + before / 400 - 477; // 477 leap days until 1970
  for (let m = 1; m < month; m++) days += daysOf(year, m);
  return days + day - 1;
}

/** The minutes that the zone from p to end is ahead of UTC; i32.MIN_VALUE is none. */
function offset(p: usize, end: usize): i32 {
  const sign = load<u8>(p);
  if (end - p == 1 && (sign | 32) == 122) return 0;
  if (end - p != 6 || sign != 43 && sign != 45 || load<u8>(p + 3) != 58) return i32.MIN_VALUE;
  const hours = two(p + 1), minutes = two(p + 4);
  if (hours < 0 || minutes < 0 || hours > 23 || minutes > 59) return i32.MIN_VALUE;
  const ahead = 60 * hours + minutes;
  return sign == 45 ? -ahead : ahead;
}

// ---- documents in the making ----

/** Bytes, at most MAX_OUTPUT of them; what does not fit makes it full. */
@final
class Buffer {
  at: usize = 0;
  length: u32 = 0;
  room: u32 = 0;
  full: bool = false;

  /** Makes room for n more bytes and says whether there is. */
  reserve(n: u32): bool {
    if (this.room - this.length >= n) return !this.full;
    return this.grow(n);
  }

  private grow(n: u32): bool {
    if (n > MAX_OUTPUT - this.length) this.full = true;
    if (this.full) return false;
    const room = max(this.length + n, max(2 * this.room, 252));
    const at = heap.alloc(room);
    memory.copy(at, this.at, this.length);
    this.at = at;
    this.room = room;
    return true;
  }

  add(from: usize, n: u32): void {
    if (!this.reserve(n)) return;
    memory.copy(this.at + this.length, from, n);
    this.length += n;
  }

  byte(b: u32): void {
    if (!this.reserve(1)) return;
    store<u8>(this.at + this.length++, b);
  }

  /** Adds what a string says, in UTF-8. */
  string(s: string): void {
    const n = <u32>s.length;
    if (!this.reserve(n)) return;
    const from = changetype<usize>(s), to = this.at + this.length;
    let i: u32 = 0;
    for (; i + 4 <= n; i += 4) { // four letters at a time
      let four = load<u64>(from + 2 * i);
      if ((four & 0xff80ff80ff80ff80) != 0) break;
      four = (four | four >> 8) & 0x0000ffff0000ffff;
      store<u32>(to + i, <u32>(four | four >> 16));
    }
    for (; i < n; i++) {
      const c = load<u16>(from + 2 * i);
      if (c > 0x7f) return this.wide(s);
      store<u8>(to + i, c);
    }
    this.length += n;
  }

  private wide(s: string): void {
    const encoded = String.UTF8.encode(s);
    this.add(changetype<usize>(encoded), encoded.byteLength);
  }

  head(major: u32, n: u64): void {
    if (n < 24) return this.byte(major << 5 | <u32>n);
    const width: u32 = n < 0x100 ? 1 : n < 0x10000 ? 2 : n < 0x100000000 ? 4 : 8;
    if (!this.reserve(1 + width)) return;
    this.length += putHead(this.at + this.length, major, n);
  }

  /** Adds a text item. */
  textItem(s: string): void {
    const n: u64 = isWide(s) ? String.UTF8.byteLength(s) : s.length;
    this.head(TEXT, n);
    this.string(s);
  }

  /** Adds a whole number in decimal. */
  decimal(n: i64): void {
    let left = n < 0 ? <u64>-n : <u64>n;
    let digits: u32 = n < 0 ? 2 : 1;
    for (let rest = left; rest >= 10; rest /= 10) digits++;
    if (!this.reserve(digits)) return;
    this.length += digits;
    let p = this.at + this.length;
    do {
      store<u8>(--p, 48 + <u32>(left % 10));
      left /= 10;
    } while (left != 0);
    if (n < 0) store<u8>(--p, 45);
  }

  /** Adds what is said in a text: a string, a text of the request, a whole number. */
  say<T>(piece: T): void {
    if (isString<T>()) {
      this.string(changetype<string>(piece));
    } else if (isInteger<T>()) {
      // A class's reference is an integer's size but no integer: this is a number.
      this.decimal(<i64>piece);
    } else {
      const v = changetype<Value>(piece);
      if (v.isText) {
        const at = v.bytes;
        this.add(at, <u32>argument);
      } else if (v.isInt) {
        this.decimal(v.int);
      }
    }
  }

  /** Adds what can stand in a document. */
  put<T>(value: T): void {
    if (isString<T>()) {
      this.textItem(changetype<string>(value));
    } else if (isBoolean<T>()) {
      this.byte(value ? 0xf5 : 0xf4);
    } else if (isFloat<T>()) {
      this.float(<f64>value);
    } else if (isInteger<T>()) {
      const n = <i64>value;
      if (isSigned<T>() && n < 0) this.head(NEGINT, ~n);
      else if (n < 0) this.full = true; // beyond what a request can say
      else this.head(UINT, n);
    } else if (isManaged<T>()) {
      const document = changetype<Container>(value);
      document.into(this);
    } else {
      this.copy(changetype<usize>(value));
    }
  }

  /** Adds a float. One that is no number has no CBOR here. */
  float(f: f64): void {
    if (!isFinite(f)) this.full = true;
    if (!this.reserve(9)) return;
    store<u8>(this.at + this.length, 0xfb);
    store<u64>(this.at + this.length + 1, bswap<u64>(reinterpret<u64>(f)));
    this.length += 9;
  }

  /** Adds a copy of an item, with its floats widened. */
  private copy(from: usize): void {
    if (from == 0) {
      this.full = true;
      return;
    }
    let p = from;
    for (let left: u32 = 1; left > 0; left--) {
      const first = load<u8>(p), major = first >> 5, body = p + headSize(p);
      if (first == 0xf9 || first == 0xfa) {
        this.add(from, <u32>(p - from));
        this.float(floatAt(p));
        from = body;
      }
      p = body;
      if (major == TEXT) p += <usize>argument;
      else if (major == LIST) left += <u32>argument;
      else if (major == MAP) left += 2 * <u32>argument;
    }
    this.add(from, <u32>(p - from));
  }
}

/** Writes a head to p and returns its size. */
function putHead(p: usize, major: u32, n: u64): u32 {
  if (n < 24) {
    store<u8>(p, major << 5 | <u32>n);
    return 1;
  }
  const log: u32 = n < 0x100 ? 0 : n < 0x10000 ? 1 : n < 0x100000000 ? 2 : 3;
  const width: u32 = 1 << log;
  store<u8>(p, major << 5 | 24 + log);
  for (let i: u32 = 1; i <= width; i++) store<u8>(p + i, n >> 8 * (width - i));
  return 1 + width;
}

/** What a list or a map in the making have in common. */
class Container {
  protected body: Buffer = new Buffer();
  protected count: u32 = 0;
  constructor(private major: u8) {}

  get length(): u32 { return this.count; }

  into(out: Buffer): void {
    out.full = out.full || this.body.full;
    out.head(this.major, this.count);
    out.add(this.body.at, this.body.length);
  }
}

/** A list in a document: `new ListOf().push("one").push(2)`. */
@final
export class ListOf extends Container {
  constructor() { super(LIST); }

  /** Adds a string, a number, a bool, a value, a list or a map. */
  push<T>(item: T): ListOf {
    this.count++;
    this.body.put<T>(item);
    return this;
  }

  pushNull(): ListOf {
    this.count++;
    this.body.byte(0xf6);
    return this;
  }
}

/** A map in a document: `new MapOf().set("left", 3)`. Members may be set in any
 * order, each once: a key that is set twice is a guest error. */
@final
export class MapOf extends Container {
  private last: u32 = 0; // of the member with the last key

  constructor() { super(MAP); }

  /** Sets a member to a string, a number, a bool, a value, a list or a map. */
  set<T>(key: string, value: T): MapOf {
    const at = this.body.length;
    this.body.textItem(key);
    this.body.put<T>(value);
    return this.sort(at);
  }

  setNull(key: string): MapOf {
    const at = this.body.length;
    this.body.textItem(key);
    this.body.byte(0xf6);
    return this.sort(at);
  }

  /** Moves the member at `at`, behind all others, to where its key belongs. */
  private sort(at: u32): MapOf {
    const body = this.body;
    if (this.count++ == 0 || body.full || keyOrder(body.at + this.last, body.at + at) < 0) {
      this.last = at;
      return this;
    }
    const size = body.length - at;
    if (!body.reserve(size)) return this;
    let to = body.at;
    while (keyOrder(to, body.at + at) < 0) to = skip(skip(to));
    body.full = keyOrder(to, body.at + at) == 0;
    this.last += size;
    const moved = body.at + body.length - to;
    memory.copy(to + size, to, moved);
    memory.copy(to, to + moved, size);
    return this;
  }
}

/** The order of two keys: by their length, then by their bytes. */
function keyOrder(a: usize, b: usize): i32 {
  a += headSize(a);
  const n = argument;
  b += headSize(b);
  if (n != argument) return n < argument ? -1 : 1;
  return memory.compare(a, b, <usize>n);
}

/** A text of one's own, said in pieces, such as a log message. It is gone after the call. */
@final
export class Text {
  private said: Buffer = new Buffer();

  say<T>(piece: T): Text {
    this.said.say<T>(piece);
    return this;
  }

  get at(): usize { return this.said.at; }
  get length(): u32 { return this.said.length; }
}

// ---- the decision ----

export enum Verdict { Deny, RequireApproval, Throttle, Transform, Allow }

const VERDICTS: StaticArray<string> = ["deny", "require_approval", "throttle", "transform", "allow"];

/** Something that the asker must do, in the making. */
@final
export class Obligation {
  properties: MapOf | null = null;
  next: Obligation | null = null;
  constructor(public id: string, public type: string) {}

  /** Sets a property to a string, a number, a bool, a value, a list or a map. */
  set<T>(key: string, value: T): Obligation {
    let p = this.properties;
    if (!p) this.properties = p = new MapOf();
    p.set<T>(key, value);
    return this;
  }
}

/** The answer in the making. It begins as a denial without a reason. What does
 * not fit into MAX_OUTPUT, or has no CBOR, makes it a guest error, which the host
 * answers with the point's fail mode. */
@final
export class Decision {
  verdict: Verdict = Verdict.Deny;
  private out: Buffer = new Buffer();
  private reasons: u32 = 0;
  private open: u32 = 0; // where the text of the last reason begins, 0 when it is closed
  private document: Buffer | null = null;
  private obligations: u32 = 0;
  private first: Obligation | null = null;
  private last: Obligation | null = null;

  deny(code: string): Decision { return this.because(Verdict.Deny, code); }
  requireApproval(code: string): Decision { return this.because(Verdict.RequireApproval, code); }
  throttle(code: string): Decision { return this.because(Verdict.Throttle, code); }
  transform(code: string): Decision { return this.because(Verdict.Transform, code); }
  allow(code: string): Decision { return this.because(Verdict.Allow, code); }

  /** Sets the verdict and adds a reason. The code is for machines and stable; the
   * text is what is said then. */
  because(verdict: Verdict, code: string): Decision {
    this.verdict = verdict;
    return this.reason(code);
  }

  /** Adds a reason. */
  reason(code: string): Decision {
    const out = this.out;
    this.close();
    this.reasons++;
    out.add(CODE, 6);
    out.textItem(code);
    out.add(TEXT_OF_REASON, 7);
    this.open = out.length;
    return this;
  }

  /** Adds to the text of the last reason: a string, a text or whole number of the
   * request, a whole number. */
  say<T>(piece: T): Decision {
    if (this.open != 0) this.out.say<T>(piece);
    return this;
  }

  /** Writes the length of the last reason's text, for which two bytes were left. */
  private close(): void {
    const from = this.open, out = this.out;
    if (from == 0 || out.full) return;
    this.open = 0;
    const n = out.length - from, size: u32 = n < 24 ? 1 : n < 256 ? 2 : 3;
    if (size != 2) {
      if (!out.reserve(1)) return;
      memory.copy(out.at + from - 2 + size, out.at + from, n);
      out.length = out.length - 2 + size;
    }
    putHead(out.at + from - 2, TEXT, n);
  }

  /** Adds something that the asker must do. An empty id is left out, and so are
   * properties when none is set. */
  obligation(id: string, type: string): Obligation {
    const o = new Obligation(id, type);
    const last = this.last;
    if (last) last.next = o;
    else this.first = o;
    this.last = o;
    this.obligations++;
    return o;
  }

  /** Sets the answer's document: a string, a number, a bool, a value, a list or a map. */
  value<T>(value: T): void {
    const document = new Buffer();
    document.put<T>(value);
    this.document = document;
  }

  /** Sets the answer's document to null. */
  valueNull(): void {
    const document = new Buffer();
    document.byte(0xf6);
    this.document = document;
  }

  /** Writes the answer; 0 is a guest error. */
  finish(): u64 {
    this.close();
    const document = this.document, reasons = this.out;
    if (reasons.full || document && document.full) return 0;
    const out = new Buffer();
    out.reserve(min(reasons.length + (document ? document.length : 0) + 80, MAX_OUTPUT));
    out.byte(MAP << 5 | 1 + u32(document != null) + u32(this.reasons > 0) + u32(this.obligations > 0));
    if (document) {
      out.add(VALUE, 6);
      out.add(document.at, document.length);
    }
    if (this.reasons > 0) {
      out.add(REASONS, 8);
      out.head(LIST, this.reasons);
      out.add(reasons.at, reasons.length);
    }
    out.add(VERDICT, 8);
    out.textItem(unchecked(VERDICTS[this.verdict]));
    if (this.obligations > 0) {
      out.add(OBLIGATIONS, 12);
      out.head(LIST, this.obligations);
      let o = this.first;
      while (o) {
        this.perform(out, o);
        o = o.next;
      }
    }
    return out.full ? 0 : <u64>out.at << 32 | out.length;
  }

  private perform(out: Buffer, o: Obligation): void {
    const properties = o.properties;
    out.byte(MAP << 5 | 1 + u32(o.id.length > 0) + u32(properties != null));
    if (o.id.length > 0) {
      out.textItem("id");
      out.textItem(o.id);
    }
    out.textItem("type");
    out.textItem(o.type);
    if (properties) {
      out.textItem("properties");
      properties.into(out);
    }
  }
}

// Members' names as they stand in an answer.
const CODE = memory.data<u8>([0xa2, 0x64, 0x63, 0x6f, 0x64, 0x65]);
const TEXT_OF_REASON = memory.data<u8>([0x64, 0x74, 0x65, 0x78, 0x74, 0x78, 0]);
const VALUE = memory.data<u8>([0x65, 0x76, 0x61, 0x6c, 0x75, 0x65]);
const REASONS = memory.data<u8>([0x67, 0x72, 0x65, 0x61, 0x73, 0x6f, 0x6e, 0x73]);
const VERDICT = memory.data<u8>([0x67, 0x76, 0x65, 0x72, 0x64, 0x69, 0x63, 0x74]);
const OBLIGATIONS = memory.data<u8>([0x6b, 0x6f, 0x62, 0x6c, 0x69, 0x67, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x73]);

// ---- the host ----

// @ts-ignore: decorator
@external("holdfast_v1", "log")
declare function hostLog(level: i32, at: usize, length: u32): void;
// @ts-ignore: decorator
@external("holdfast_v1", "now")
declare function hostNow(): i64;
// @ts-ignore: decorator
@external("holdfast_v1", "match")
declare function hostMatch(pattern: i32, at: usize, length: u32): i32;

export enum Level { Debug, Info, Warn, Error }

/** Hands the host a message, which bounds it and keeps it beside the record. */
export function log(level: Level, text: Text): void { hostLog(level, text.at, text.length); }

/** The request's instant in nanoseconds since 1970. It does not move while a decision is made. */
export function now(): i64 { return hostNow(); }

/** Whether the manifest's pattern of that number, from 0, matches a text. The host
 * runs it in time linear in the text. There is no such pattern: false. */
export function matches(pattern: i32, text: Value): bool {
  if (!text.isText) return hostMatch(pattern, 0, 0) == 1;
  const at = text.bytes;
  return hostMatch(pattern, at, <u32>argument) == 1;
}

// ---- the contract ----

let policy: Policy | null = null;
let floor: usize = 0; // the block that each call begins with: its input
let room: u32 = 0; // of the input

/** Makes p the module's policy. */
export function register(p: Policy): void { policy = p; }

/** Begins a call: all that the last one took is free again. */
export function holdfast_alloc(n: u32): usize {
  if (n > (floor == 0 ? MAX_INIT : MAX_INPUT)) return 0;
  if (floor == 0) floor = heap.alloc(0);
  // The stub frees the last block only. So the floor becomes one block with all
  // that is behind it.
  const end = heap.alloc(0) + EMPTY;
  store<u32>(floor - 4, <u32>(end - floor));
  heap.free(floor);
  floor = heap.alloc(n + SLACK);
  room = n;
  return floor;
}

/** How many bytes behind the input are memory, so that reading a word at its end is no trap. */
const SLACK: u32 = 16;
/** The size that the stub gives to a block of nothing. */
const EMPTY: usize = 12;

export function holdfast_abi_v1(): i32 { return 0; }

/** The document in the input buffer, if it is one. */
function input(at: usize, n: u32): Value {
  if (at != floor || n > room || at == 0) return Value.absent;
  return check(at, at + n, 1, false, 0) == at + n ? changetype<Value>(at) : Value.absent;
}

export function holdfast_init(at: usize, n: u32): i32 {
  const document = input(at, n), p = policy;
  if (!document.exists || !p) return 1;
  const failed = p.configure(document.get("params"), document.get("data"));
  if (failed !== null) {
    log(Level.Error, new Text().say(failed));
    return 1;
  }
  floor = heap.alloc(0);
  room = 0;
  if ((<usize>memory.size() << 16) - floor < HEADROOM) memory.grow(1);
  return 0;
}

export function holdfast_decide(at: usize, n: u32): u64 {
  const request = input(at, n), p = policy;
  if (!request.exists || !p) return 0;
  const answer = new Decision();
  p.decide(changetype<Request>(request), answer);
  return answer.finish();
}
