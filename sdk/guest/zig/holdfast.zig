//! What the author of a policy in Zig imports. It speaks version 1 of the guest
//! contract (holdfast_abi_v1), and needs no allocator. README.md beside it shows
//! it by example.
//!
//! The root file, policy.zig, declares `configure` and `decide`, and refers to
//! this one so that its exports are there:
//!
//!     const holdfast = @import("holdfast.zig");
//!     comptime {
//!         _ = holdfast;
//!     }
//!     pub fn configure(params: holdfast.Value, data: holdfast.Value) bool { ... }
//!     pub fn decide(request: holdfast.Value, d: *holdfast.Decision) void { ... }
const std = @import("std");
const policy = @import("root");

/// Levels of a document that is read.
pub const max_depth = 40;
/// Levels of a value or of properties that are written.
pub const max_nest = 28;
/// Bytes of an answer, and of any one text that is made.
pub const max_output = 64 << 10;
/// Bytes that may be kept beside as many as parameters and data have.
pub const keep_extra = 4 << 10;
/// Bytes of the longest request that is taken.
pub const max_input = 512 << 10;
/// Bytes that a call has before the memory must grow.
const room = 64 << 10;

// -- values --

pub const Kind = enum { absent, null, bool, int, float, text, list, map };

/// CBOR's major types.
const Major = enum(u3) { uint, negint, bytes, text, list, map, tag, simple };

/// The initial byte with which items of a major type begin.
fn begin(m: Major) u8 {
    return @as(u8, @intFromEnum(m)) << 5;
}

const Head = struct {
    major: Major,
    arg: u64,
    body: [*]const u8,

    /// The head of a checked item.
    inline fn of(p: [*]const u8) Head {
        const info = p[0] & 31;
        const major: Major = @enumFromInt(p[0] >> 5);
        if (info < 24) return .{ .major = major, .arg = info, .body = p + 1 };
        const n = @as(usize, 1) << @intCast(info & 3);
        return .{ .major = major, .arg = bigEndian(p + 1, n), .body = p + 1 + n };
    }
};

noinline fn bigEndian(p: [*]const u8, n: usize) u64 {
    var arg: u64 = 0;
    for (p[0..n]) |b| arg = arg << 8 | b;
    return arg;
}

/// A view into the document of the call that runs, which was checked before. It
/// copies nothing. The zero Value is absent, and every function of an absent
/// one, or of one of another kind, returns null or nothing.
pub const Value = struct {
    item: ?[*]const u8 = null,

    pub noinline fn kind(v: Value) Kind {
        const first = (v.item orelse return .absent)[0];
        return switch (@as(Major, @enumFromInt(first >> 5))) {
            .uint, .negint => .int,
            .text => .text,
            .list => .list,
            .map => .map,
            else => if (first >= 0xf9) .float else if (first == 0xf6) .null else .bool,
        };
    }

    /// Whether it is there; null is.
    pub fn exists(v: Value) bool {
        return v.item != null;
    }

    fn is(v: Value, major: Major) bool {
        const p = v.item orelse return false;
        return p[0] >> 5 == @intFromEnum(major);
    }

    pub fn boolean(v: Value) ?bool {
        const p = v.item orelse return null;
        return if (p[0] == 0xf5) true else if (p[0] == 0xf4) false else null;
    }

    pub fn int(v: Value) ?i64 {
        return if (v.kind() == .int) v.wide() else null;
    }

    noinline fn wide(v: Value) i64 {
        const h = Head.of(v.item.?);
        const n: i64 = @bitCast(h.arg);
        return if (h.major == .negint) -1 - n else n;
    }

    /// A number of either kind; integers beyond 2^53 are rounded.
    pub fn float(v: Value) ?f64 {
        return switch (v.kind()) {
            .int => @floatFromInt(v.wide()),
            .float => @bitCast(floatBits(v.item.?)),
            else => null,
        };
    }

    /// UTF-8, valid as long as the document.
    pub fn text(v: Value) ?[]const u8 {
        return if (v.is(.text)) shortText(v.item.?) else null;
    }

    /// Bytes of a text, items of a list or members of a map.
    pub noinline fn len(v: Value) usize {
        return switch (v.kind()) {
            .text, .list, .map => @intCast(Head.of(v.item.?).arg),
            else => 0,
        };
    }

    /// The member of a map.
    pub noinline fn get(v: Value, name: []const u8) Value {
        if (!v.is(.map)) return .{};
        const h = Head.of(v.item.?);
        var p = h.body;
        var left: usize = @intCast(h.arg);
        while (left > 0) : (left -= 1) {
            const key = shortText(p);
            p = key.ptr + key.len;
            if (key.len > name.len) return .{}; // keys are sorted by length
            if (key.len == name.len and same(key.ptr, name.ptr, name.len)) return .{ .item = p };
            p = skip(p);
        }
        return .{};
    }

    /// What is found by following the keys, with dots between them, through maps:
    /// request.path("context.arguments.amount").
    pub inline fn path(v: Value, comptime keys: []const u8) Value {
        comptime var rest = keys;
        var found = v;
        inline while (comptime std.mem.indexOfScalar(u8, rest, '.')) |dot| {
            found = found.get(rest[0..dot]);
            rest = rest[dot + 1 ..];
        }
        return found.get(rest);
    }

    /// The items of a list: `var all = v.items(); while (all.next()) |item| ...`
    pub fn items(v: Value) Items {
        if (!v.is(.list)) return .{};
        const h = Head.of(v.item.?);
        return .{ .left = @intCast(h.arg), .rest = h.body };
    }

    /// The members of a map, in their order.
    pub fn members(v: Value) Members {
        if (!v.is(.map)) return .{};
        const h = Head.of(v.item.?);
        return .{ .left = @intCast(h.arg), .rest = h.body };
    }

    /// Whether it is a list that has the text among its items.
    pub noinline fn lists(v: Value, t: []const u8) bool {
        if (!v.is(.list)) return false;
        const h = Head.of(v.item.?);
        var p = h.body;
        var left: usize = @intCast(h.arg);
        while (left > 0) : (left -= 1) {
            if (p[0] >> 5 != @intFromEnum(Major.text)) {
                p = skip(p);
                continue;
            }
            const item = shortText(p);
            if (item.len == t.len and same(item.ptr, t.ptr, t.len)) return true;
            p = item.ptr + item.len;
        }
        return false;
    }

    /// Whether a request's asker said that it can perform obligations of the type.
    pub fn performs(v: Value, obligation: []const u8) bool {
        return v.get("supported_obligations").lists(obligation);
    }

    /// A copy that outlives `configure`, in which alone it may be called; what is
    /// not kept is gone. Absent for what is absent, and when there is no room:
    /// keep_extra bytes more than parameters and data have.
    pub noinline fn keep(v: Value) Value {
        const p = v.item orelse return .{};
        const copied = keepBytes(p[0 .. @intFromPtr(skip(p)) - @intFromPtr(p)]) orelse return .{};
        return .{ .item = copied.ptr };
    }
};

pub const Items = struct {
    left: usize = 0,
    rest: [*]const u8 = undefined,

    pub fn next(i: *Items) ?Value {
        if (i.left == 0) return null;
        i.left -= 1;
        const item = i.rest;
        if (i.left > 0) i.rest = skip(item);
        return .{ .item = item };
    }
};

pub const Member = struct { key: []const u8, value: Value };

pub const Members = struct {
    left: usize = 0,
    rest: [*]const u8 = undefined,

    pub fn next(m: *Members) ?Member {
        if (m.left == 0) return null;
        m.left -= 1;
        const key = shortText(m.rest);
        const value = key.ptr + key.len;
        if (m.left > 0) m.rest = skip(value);
        return .{ .key = key, .value = .{ .item = value } };
    }
};

/// The text at p; a short one, as nearly all are, without a call.
inline fn shortText(p: [*]const u8) []const u8 {
    if (p[0] < begin(.text) | 24) return p[1 .. 1 + @as(usize, p[0] & 31)];
    const bits = longText(p);
    return @as([*]const u8, @ptrFromInt(@as(u32, @truncate(bits))))[0..@intCast(bits >> 32)];
}

/// Where the text at p is, and above 32 bits its length.
noinline fn longText(p: [*]const u8) u64 {
    const h = Head.of(p);
    return h.arg << 32 | @intFromPtr(h.body);
}

/// The bits of the binary64 with the value of the float at p.
fn floatBits(p: [*]const u8) u64 {
    const arg = Head.of(p).arg;
    return switch (p[0]) {
        0xf9 => half(@truncate(arg)),
        0xfa => @bitCast(@as(f64, @as(f32, @bitCast(@as(u32, @truncate(arg)))))),
        else => arg,
    };
}

fn half(h: u16) u64 {
    const sign = @as(u64, h >> 15) << 63;
    const exponent: u64 = h >> 10 & 31;
    const fraction: u64 = h & 1023;
    if (exponent == 0) return sign | @as(u64, @bitCast(@as(f64, @floatFromInt(fraction)) * 0x1p-24));
    return sign | (if (exponent == 31) 2047 else exponent + 1008) << 52 | fraction << 42;
}

/// Whether n bytes are the same.
noinline fn same(a: [*]const u8, b: [*]const u8, n: usize) bool {
    var i: usize = 0;
    while (n - i >= 8) : (i += 8) {
        if (load(u64, a + i) != load(u64, b + i)) return false;
    }
    if ((n - i) & 4 != 0) {
        if (load(u32, a + i) != load(u32, b + i)) return false;
        i += 4;
    }
    while (i < n) : (i += 1) {
        if (a[i] != b[i]) return false;
    }
    return true;
}

inline fn load(T: type, p: [*]const u8) T {
    return @as(*align(1) const T, @ptrCast(p)).*;
}

/// The order of a map's keys: by length, then by bytes. Below, at or above 0.
inline fn order(a: []const u8, b: []const u8) i32 {
    if (a.len != b.len) return if (a.len < b.len) -1 else 1;
    return orderBytes(a.ptr, b.ptr, a.len);
}

noinline fn orderBytes(a: [*]const u8, b: [*]const u8, n: usize) i32 {
    for (a[0..n], b[0..n]) |x, y| {
        if (x != y) return @as(i32, x) - y;
    }
    return 0;
}

/// Where n items end, or as many pairs, that begin at p; null when they are not
/// what Holdfast writes: definite lengths, text keys in their order and none
/// twice, no tags, no byte strings, max_depth levels.
noinline fn check(from: [*]const u8, end: usize, n: u64, pairs: bool, depth: u32) ?[*]const u8 {
    if (depth > max_depth or n > end - @intFromPtr(from)) return null;
    var p = from;
    var last: ?[]const u8 = null;
    var left: usize = @intCast(n);
    while (left > 0) : (left -= 1) {
        if (pairs) {
            if (@intFromPtr(p) >= end or p[0] >> 5 != @intFromEnum(Major.text)) return null;
            const at = p;
            p = if (p[0] & 31 < 24) p + 1 + (p[0] & 31) else checkLong(p, end, depth) orelse return null;
            if (@intFromPtr(p) >= end) return null;
            const key = shortText(at);
            if (last) |before| {
                if (order(before, key) >= 0) return null;
            }
            last = key;
        }
        if (@intFromPtr(p) >= end) return null;
        const first = p[0];
        const info = first & 31;
        if (info >= 24) {
            p = checkLong(p, end, depth) orelse return null;
            continue;
        }
        p += 1;
        if (first < begin(.bytes)) continue;
        if (first < begin(.text)) return null;
        if (first < begin(.list)) {
            p += info;
            if (@intFromPtr(p) > end) return null;
        } else if (first < begin(.tag)) {
            p = check(p, end, info, first >= begin(.map), depth + 1) orelse return null;
        } else if (first < 0xf4 or first > 0xf6) { // false, true and null
            return null;
        }
    }
    return p;
}

/// check of one item whose head has more than one byte.
noinline fn checkLong(p: [*]const u8, end: usize, depth: u32) ?[*]const u8 {
    const info = p[0] & 31;
    if (info > 27) return null; // reserved, or an indefinite length
    const size = @as(usize, 1) << @intCast(info & 3);
    if (end - @intFromPtr(p) <= size) return null;
    const h = Head.of(p);
    return switch (h.major) {
        .uint, .negint => if (h.arg <= std.math.maxInt(i64)) h.body else null,
        .text => if (h.arg <= end - @intFromPtr(h.body)) h.body + @as(usize, @intCast(h.arg)) else null,
        .list, .map => check(h.body, end, h.arg, h.major == .map, depth + 1),
        .simple => if (size > 1) h.body else null, // a float
        else => null,
    };
}

fn parse(doc: []const u8) ?Value {
    const end = @intFromPtr(doc.ptr) + doc.len;
    const p = check(doc.ptr, end, 1, false, 0) orelse return null;
    return if (@intFromPtr(p) == end) .{ .item = doc.ptr } else null;
}

/// Where the checked item at p ends.
noinline fn skip(from: [*]const u8) [*]const u8 {
    var p = from;
    var left: usize = 1;
    while (left > 0) : (left -= 1) {
        const first = p[0];
        var arg: usize = first & 31;
        if (arg < 24) {
            p += 1;
        } else {
            const h = Head.of(p);
            p = h.body;
            arg = @truncate(h.arg);
        }
        if (first < begin(.text) or first >= begin(.simple)) continue;
        if (first < begin(.list)) p += arg else left += if (first < begin(.map)) arg else 2 * arg;
    }
    return p;
}

// -- texts --

/// Whether texts are equal, byte for byte.
pub fn equal(a: []const u8, b: []const u8) bool {
    return a.len == b.len and same(a.ptr, b.ptr, a.len);
}

/// Whether texts are equal, where an ASCII letter equals the same of the other case.
pub fn equalFold(a: []const u8, b: []const u8) bool {
    if (a.len != b.len) return false;
    for (a, b) |x, y| {
        if (std.ascii.toLower(x) != std.ascii.toLower(y)) return false;
    }
    return true;
}

pub fn hasPrefix(t: []const u8, prefix: []const u8) bool {
    return t.len >= prefix.len and same(t.ptr, prefix.ptr, prefix.len);
}

pub fn hasSuffix(t: []const u8, suffix: []const u8) bool {
    return t.len >= suffix.len and same(t.ptr + (t.len - suffix.len), suffix.ptr, suffix.len);
}

pub fn contains(t: []const u8, part: []const u8) bool {
    var i: usize = 0;
    while (i + part.len <= t.len) : (i += 1) {
        if (same(t.ptr + i, part.ptr, part.len)) return true;
    }
    return false;
}

/// The instant of a text in RFC 3339, in nanoseconds since 1970: date, T or t,
/// time to the second with at most 9 more digits behind a dot, and a zone. Years are
/// 1970 to 2200, no leap seconds. Null when it is not one.
pub noinline fn time(t: []const u8) ?i64 {
    if (t.len < 20 or t[4] != '-' or t[7] != '-' or t[10] | 32 != 't' or t[13] != ':' or t[16] != ':') return null;
    const days = daysTo(digits(t.ptr, 4, 2200), digits(t.ptr + 5, 2, 12), digits(t.ptr + 8, 2, 31));
    const hours = digits(t.ptr + 11, 2, 23);
    const minutes = digits(t.ptr + 14, 2, 59);
    const seconds = digits(t.ptr + 17, 2, 59);
    if (days < 0 or hours < 0 or minutes < 0 or seconds < 0) return null;
    var at: usize = 19;
    var fraction: i64 = 0;
    if (t[at] == '.') {
        var unit: i64 = 100_000_000;
        at += 1;
        while (at < t.len and std.ascii.isDigit(t[at])) : (at += 1) {
            fraction += unit * (t[at] - '0');
            unit = @divTrunc(unit, 10);
        }
        if (at == 20 or at > 29) return null;
    }
    const offset = zone(t[at..]) orelse return null;
    return (@as(i64, days) * 86400 + (hours * 3600 + minutes * 60 + seconds - offset)) * std.time.ns_per_s + fraction;
}

/// The number of n digits at p, at most max; -1 when it is not one.
noinline fn digits(p: [*]const u8, n: usize, max: i32) i32 {
    var number: i32 = 0;
    for (p[0..n]) |c| {
        if (c < '0' or c > '9') return -1;
        number = number * 10 + (c - '0');
    }
    return if (number <= max) number else -1;
}

/// Days from 1970 to the date, -1 when there is no such day.
fn daysTo(year: i32, month: i32, day: i32) i32 {
    const before = [_]u16{ 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365 };
    if (year < 1970 or month < 1 or day < 1) return -1;
    const leap = @rem(year, 4) == 0 and (@rem(year, 100) != 0 or @rem(year, 400) == 0);
    const m: usize = @intCast(month);
    if (day > before[m] - before[m - 1] + @intFromBool(leap and m == 2)) return -1;
    const past = year - 1;
    const leaps = @divTrunc(past, 4) - @divTrunc(past, 100) + @divTrunc(past, 400) - 477;
    return (year - 1970) * 365 + leaps + before[m - 1] + @intFromBool(leap and m > 2) + day - 1;
}

/// Seconds east of Greenwich.
inline fn zone(t: []const u8) ?i32 {
    if (t.len == 1) return if (t[0] | 32 == 'z') 0 else null;
    if (t.len != 6 or (t[0] != '+' and t[0] != '-') or t[3] != ':') return null;
    const hours = digits(t.ptr + 1, 2, 23);
    const minutes = digits(t.ptr + 4, 2, 59);
    if (hours < 0 or minutes < 0) return null;
    return (hours * 60 + minutes) * @as(i32, if (t[0] == '-') -60 else 60);
}

// -- memory --

/// Above the module's own data lies what configuration kept, and above that what
/// one call uses: the input, then the arena.
const Memory = struct {
    /// Where the memory of a call begins.
    floor: usize = 0,
    /// The top of the arena.
    top: usize = 0,
    end: usize = 0,
    /// Where the next kept bytes go, while configuring.
    kept: usize = 0,
    input: usize = 0,
    input_len: usize = 0,
    ready: bool = false,
    failed: bool = false,
};
var memory: Memory = .{};
extern const __heap_base: u8;

/// Makes the decision a guest error, which the host answers with the point's
/// fail mode. What does not fit does so by itself.
pub fn fail() void {
    memory.failed = true;
}

fn aligned(n: usize) usize {
    return (n + 7) & ~@as(usize, 7);
}

noinline fn grow(bytes: usize) bool {
    const pages = (bytes + 65535) >> 16;
    if (bytes > 1 << 30 or @wasmMemoryGrow(0, pages) < 0) return false;
    memory.end += pages << 16;
    return true;
}

/// The address of n bytes that are valid until the call ends; 0 makes it a guest error.
noinline fn allocate(n: usize) usize {
    const size = aligned(n);
    const left = memory.end - memory.top;
    if (size > left and !grow(size - left)) {
        fail();
        return 0;
    }
    defer memory.top += size;
    return memory.top;
}

fn create(T: type) ?*T {
    const one = alloc(T, 1) orelse return null;
    return &one[0];
}

/// Memory for n items, valid until the call ends. It is not cleared, and there is
/// no way to give it back. Null makes the decision a guest error.
pub fn alloc(T: type, n: usize) ?[]T {
    comptime std.debug.assert(@alignOf(T) <= 8);
    if (n > (1 << 30) / @max(1, @sizeOf(T))) {
        fail();
        return null;
    }
    const at = allocate(n * @sizeOf(T));
    return if (at == 0) null else @as([*]T, @ptrFromInt(at))[0..n];
}

noinline fn keepBytes(b: []const u8) ?[]const u8 {
    if (memory.ready or b.len > memory.input - memory.kept) return null;
    const to = @as([*]u8, @ptrFromInt(memory.kept))[0..b.len];
    @memcpy(to, b);
    memory.kept += b.len;
    return to;
}

/// A copy of a text that outlives `configure`, in which alone it may be called;
/// the text may be one that was made. Null when there is no room.
pub fn keepText(t: []const u8) ?[]const u8 {
    return keepBytes(t);
}

/// A text in the making. One beyond max_output makes the decision a guest error.
pub const Line = struct {
    at: [*]u8 = undefined,
    len: usize = 0,
    room: usize = 0,

    /// What the line has so far, valid until more is added.
    pub fn text(l: *const Line) []const u8 {
        return if (l.len == 0) "" else l.at[0..l.len];
    }

    pub noinline fn add(l: *Line, t: []const u8) void {
        const to = l.reserve(t.len) orelse return;
        @memcpy(to, t);
        l.len += t.len;
    }

    /// Adds a number in decimal.
    pub noinline fn addInt(l: *Line, n: i64) void {
        var buffer: [20]u8 = undefined;
        var at: usize = buffer.len;
        var left = @abs(n);
        while (true) {
            at -= 1;
            buffer[at] = '0' + @as(u8, @intCast(left % 10));
            left /= 10;
            if (left == 0) break;
        }
        if (n < 0) {
            at -= 1;
            buffer[at] = '-';
        }
        l.add(buffer[at..]);
    }

    /// Where n more bytes may be written; null when there is no room.
    noinline fn reserve(l: *Line, n: usize) ?[*]u8 {
        if (n > max_output - l.len) {
            fail();
            return null;
        }
        if (n > l.room - l.len) {
            const last = l.room > 0 and @intFromPtr(l.at) + l.room == memory.top;
            const wanted = aligned(2 * (l.len + n) + 57);
            const at = allocate(if (last) wanted - l.room else wanted);
            if (at == 0) return null;
            if (!last) {
                const to: [*]u8 = @ptrFromInt(at);
                if (l.len > 0) @memcpy(to, l.at[0..l.len]);
                l.at = to;
            }
            l.room = wanted;
        }
        return l.at + l.len;
    }
};

/// A text made of texts and integers: text(.{ amount, " is more than ", cap }).
pub inline fn text(parts: anytype) []const u8 {
    var line: Line = .{};
    inline for (parts) |part| {
        switch (@typeInfo(@TypeOf(part))) {
            .int, .comptime_int => line.addInt(part),
            else => line.add(part),
        }
    }
    return line.text();
}

// -- documents --

const Frame = struct {
    /// Of the list or map; one byte is left for its head.
    start: u32,
    count: u32 = 0,
    /// Where the last key is.
    key: u32 = 0,
    map: bool,
    /// There is a key without its value.
    pending: bool = false,
    unsorted: bool = false,
};

/// A document in the making: put... writes an item, open... and close enclose
/// those of a list or a map, key names the next item of a map. Keys come in any
/// order and are written in the one that is prescribed. One that is not whole, has a
/// key twice, nests deeper than max_nest or has a text that is not UTF-8 makes the
/// decision a guest error.
pub const Doc = struct {
    out: Line = .{},
    depth: u32 = 0,
    frames: [max_nest]Frame = undefined,

    pub fn putNull(d: *Doc) void {
        d.putSimple(0xf6);
    }

    pub fn putBool(d: *Doc, b: bool) void {
        d.putSimple(if (b) 0xf5 else 0xf4);
    }

    noinline fn putSimple(d: *Doc, b: u8) void {
        const p = d.item(1) orelse return;
        p[0] = b;
        d.out.len += 1;
    }

    pub noinline fn putInt(d: *Doc, n: i64) void {
        const p = d.item(9) orelse return;
        const bits: u64 = @bitCast(n);
        d.wrote(if (n < 0) writeHead(p, .negint, ~bits) else writeHead(p, .uint, bits));
    }

    /// Not a number and infinity make the decision a guest error.
    pub fn putFloat(d: *Doc, f: f64) void {
        const p = d.item(9) orelse return;
        d.wrote(writeFloat(p, @bitCast(f)));
    }

    pub noinline fn putText(d: *Doc, t: []const u8) void {
        if (t.len > max_output) return fail();
        const p = d.item(t.len + 9) orelse return;
        d.wrote(writeText(p, t));
    }

    /// Copies a value of the request or of the configuration. An absent one makes
    /// the decision a guest error.
    pub fn putValue(d: *Doc, v: Value) void {
        const p = v.item orelse return fail();
        if (d.item(1) != null) _ = d.copy(p, d.depth);
    }

    pub fn openMap(d: *Doc) void {
        d.open(true);
    }

    pub fn openList(d: *Doc) void {
        d.open(false);
    }

    noinline fn open(d: *Doc, map: bool) void {
        if (d.item(1) == null) return;
        if (d.depth == max_nest) return fail();
        d.frames[d.depth] = .{ .start = @intCast(d.out.len), .map = map };
        d.depth += 1;
        d.out.len += 1;
    }

    /// Names the next item of the open map, and returns d: d.key("n").putInt(7).
    pub noinline fn key(d: *Doc, name: []const u8) *Doc {
        d.putKey(name) orelse fail();
        return d;
    }

    fn putKey(d: *Doc, name: []const u8) ?void {
        if (d.depth == 0 or name.len > max_output) return null;
        const f = &d.frames[d.depth - 1];
        if (!f.map or f.pending) return null;
        const p = d.out.reserve(name.len + 9) orelse return null;
        if (f.count > 0) {
            const after = order(shortText(d.out.at + f.key), name);
            if (after == 0) return null;
            if (after > 0) f.unsorted = true;
        }
        f.key = @intCast(d.out.len);
        f.count += 1;
        f.pending = true;
        d.wrote(writeText(p, name));
    }

    /// Ends the list or map that was opened last.
    pub noinline fn close(d: *Doc) void {
        if (d.depth == 0) return fail();
        d.depth -= 1;
        const f = &d.frames[d.depth];
        const size = d.out.len - f.start - 1;
        if (f.pending) return fail();
        const more: usize = if (f.count < 24) 0 else if (f.count < 1 << 8) 1 else if (f.count < 1 << 16) 2 else 4;
        _ = d.out.reserve(more) orelse return;
        const head = d.out.at + f.start;
        if (f.unsorted) sort(head + 1, size, f.count);
        if (more > 0) @memmove((head + 1 + more)[0..size], (head + 1)[0..size]);
        _ = writeHead(head, if (f.map) .map else .list, f.count);
        d.out.len += more;
    }

    /// The document as a value, valid until more is put; absent when it is not whole.
    pub fn asValue(d: *const Doc) Value {
        return if (d.whole()) .{ .item = d.out.at } else .{};
    }

    fn whole(d: *const Doc) bool {
        return d.depth == 0 and d.out.len > 0;
    }

    fn wrote(d: *Doc, end: [*]u8) void {
        d.out.len = @intFromPtr(end) - @intFromPtr(d.out.at);
    }

    /// Counts the next item and returns where its first n bytes go; null when none
    /// may come here, or there is no room.
    noinline fn item(d: *Doc, n: usize) ?[*]u8 {
        if (d.depth == 0) {
            if (d.out.len == 0) return d.out.reserve(n);
            fail();
            return null;
        }
        const f = &d.frames[d.depth - 1];
        if (f.map and !f.pending) {
            fail();
            return null;
        }
        if (!f.map) f.count += 1;
        f.pending = false;
        return d.out.reserve(n);
    }

    /// Copies the checked item at p and returns where it ends. Numbers are written
    /// as those that were put.
    noinline fn copy(d: *Doc, p: [*]const u8, depth: u32) ?[*]const u8 {
        const h = Head.of(p);
        const nested = h.major == .list or h.major == .map;
        const bytes = if (h.major == .text) shortText(p) else "";
        if (bytes.len > max_output or nested and depth == max_nest) {
            fail();
            return null;
        }
        const to = d.out.reserve(9 + bytes.len) orelse return null;
        if (h.major == .text) {
            d.wrote(writeText(to, bytes));
            return bytes.ptr + bytes.len;
        }
        d.wrote(if (p[0] >= 0xf9) writeFloat(to, floatBits(p)) else writeHead(to, h.major, h.arg));
        if (!nested) return h.body;
        var left = if (h.major == .map) 2 * h.arg else h.arg;
        var at = h.body;
        while (left > 0) : (left -= 1) at = d.copy(at, depth + 1) orelse return null;
        return at;
    }
};

const Sorted = struct {
    at: [*]const u8,
    size: usize,

    fn key(s: Sorted) []const u8 {
        return shortText(s.at);
    }
};

/// Puts the n members that begin at p, and have size bytes, into their order.
noinline fn sort(p: [*]u8, size: usize, n: usize) void {
    const top = memory.top;
    const copied = alloc(u8, size) orelse return;
    const m = alloc(Sorted, n) orelse return;
    var from: [*]const u8 = copied.ptr;
    @memcpy(copied, p[0..size]);
    for (m) |*member| {
        member.at = from;
        from = skip(skip(from));
        member.size = @intFromPtr(from) - @intFromPtr(member.at);
    }
    shellSort(m);
    var to = p;
    for (m, 0..) |member, i| {
        if (i > 0 and order(m[i - 1].key(), member.key()) == 0) fail();
        @memcpy(to, member.at[0..member.size]);
        to += member.size;
    }
    memory.top = top;
}

fn shellSort(m: []Sorted) void {
    var gap = m.len / 2;
    while (gap > 0) : (gap /= 2) {
        for (gap..m.len) |i| {
            const moved = m[i];
            var to = i;
            while (to >= gap and order(m[to - gap].key(), moved.key()) > 0) : (to -= gap) m[to] = m[to - gap];
            m[to] = moved;
        }
    }
}

noinline fn isUTF8(t: []const u8) bool {
    var i: usize = 0;
    while (i < t.len) {
        if (t.len - i >= 8 and load(u64, t.ptr + i) & 0x8080808080808080 == 0) {
            i += 8;
            continue;
        }
        const first = t[i];
        i += 1;
        if (first < 0x80) continue;
        const more: usize = if (first >= 0xf0) 3 else if (first >= 0xe0) 2 else 1;
        if (first < 0xc2 or first > 0xf4 or t.len - i < more) return false;
        const low: u8 = if (first == 0xe0) 0xa0 else if (first == 0xf0) 0x90 else 0x80;
        const high: u8 = if (first == 0xed) 0x9f else if (first == 0xf4) 0x8f else 0xbf;
        if (t[i] < low or t[i] > high) return false;
        for (t[i..][0..more]) |c| {
            if (c & 0xc0 != 0x80) return false;
        }
        i += more;
    }
    return true;
}

/// Writes a head of at most 9 bytes and returns where it ends.
noinline fn writeHead(p: [*]u8, major: Major, arg: u64) [*]u8 {
    if (arg < 24) {
        p[0] = begin(major) | @as(u8, @intCast(arg));
        return p + 1;
    }
    const size: u2 = if (arg < 1 << 8) 0 else if (arg < 1 << 16) 1 else if (arg < 1 << 32) 2 else 3;
    p[0] = begin(major) | 24 | @as(u8, size);
    var left = arg;
    var at = @as(usize, 1) << size;
    while (at > 0) : (at -= 1) {
        p[at] = @truncate(left);
        left >>= 8;
    }
    return p + 1 + (@as(usize, 1) << size);
}

noinline fn writeText(p: [*]u8, t: []const u8) [*]u8 {
    if (!isUTF8(t)) fail();
    return writeRaw(writeHead(p, .text, t.len), t);
}

inline fn writeRaw(p: [*]u8, t: []const u8) [*]u8 {
    @memcpy(p, t);
    return p + t.len;
}

fn writeFloat(p: [*]u8, bits: u64) [*]u8 {
    if (bits >> 52 & 2047 == 2047) fail(); // not a number, or infinite: JSON has none
    p[0] = 0xfb;
    std.mem.writeInt(u64, p[1..9], bits, .big);
    return p + 9;
}

// -- decisions --

/// The verdicts, strongest first.
pub const Verdict = enum { deny, require_approval, throttle, transform, allow };

const Reason = struct {
    next: ?*Reason = null,
    code: []const u8,
    text: []const u8,
};

const Obligation = struct {
    next: ?*Obligation = null,
    id: []const u8,
    type: []const u8,
    properties: Doc,
};

/// What the policy answers; it begins as a denial without a reason.
pub const Decision = struct {
    verdict: Verdict = .deny,
    reasons: ?*Reason = null,
    last_reason: ?*Reason = null,
    obligations: ?*Obligation = null,
    last_obligation: ?*Obligation = null,
    document: ?*Doc = null,

    /// Adds a reason. The code is for machines and stable, the text is for people.
    /// Both are looked at when `decide` has returned.
    pub noinline fn reason(d: *Decision, code: []const u8, why: []const u8) void {
        const r = create(Reason) orelse return;
        r.* = .{ .code = code, .text = why };
        if (d.last_reason) |last| last.next = r else d.reasons = r;
        d.last_reason = r;
    }

    /// Sets the verdict and adds a reason.
    pub fn answer(d: *Decision, verdict: Verdict, code: []const u8, why: []const u8) void {
        d.verdict = verdict;
        d.reason(code, why);
    }

    /// Adds something that the asker must do, and returns its properties: a document
    /// in which a map is open already, and which need not be closed. id may be empty.
    pub noinline fn obligation(d: *Decision, id: []const u8, kind: []const u8) *Doc {
        const o = create(Obligation) orelse return &spare;
        o.next = null;
        o.id = id;
        o.type = kind;
        o.properties.out = .{};
        o.properties.depth = 0;
        if (d.last_obligation) |last| last.next = o else d.obligations = o;
        d.last_obligation = o;
        o.properties.openMap();
        return &o.properties;
    }

    /// The document that the decision carries beside its verdict: one item is put into it.
    pub fn value(d: *Decision) *Doc {
        if (d.document) |doc| return doc;
        const doc = create(Doc) orelse return &spare;
        doc.out = .{};
        doc.depth = 0;
        d.document = doc;
        return doc;
    }

    /// Closes what is open, counts, and returns a bound of the answer's size.
    fn settle(d: *Decision, reasons: *u32, obligations: *u32) u64 {
        var bound: u64 = 64;
        var r = d.reasons;
        while (r) |each| : (r = each.next) {
            reasons.* += 1;
            bound += 24 + @as(u64, each.code.len) + each.text.len;
        }
        var o = d.obligations;
        while (o) |each| : (o = each.next) {
            obligations.* += 1;
            if (each.properties.depth == 1) each.properties.close();
            if (!each.properties.whole()) fail();
            bound += 48 + @as(u64, each.id.len) + each.type.len + each.properties.out.len;
        }
        if (d.document) |doc| {
            if (!doc.whole()) fail();
            bound += 8 + doc.out.len;
        }
        return bound;
    }

    /// Writes the answer and returns where it is, as the contract has it; 0 is a guest error.
    noinline fn finish(d: *Decision) u64 {
        var reasons: u32 = 0;
        var obligations: u32 = 0;
        const bound = d.settle(&reasons, &obligations);
        if (memory.failed or bound > 2 * max_output) return 0;
        const out = allocate(@intCast(bound));
        if (out == 0) return 0;
        var p: [*]u8 = @ptrFromInt(out);
        p[0] = 0xa1 + @as(u8, @intFromBool(d.document != null)) + @intFromBool(reasons > 0) + @intFromBool(obligations > 0);
        p += 1;
        if (d.document) |doc| p = writeRaw(writeRaw(p, "\x65value"), doc.out.text());
        if (reasons > 0) p = d.writeReasons(writeHead(writeRaw(p, "\x67reasons"), .list, reasons));
        p = writeText(writeRaw(p, "\x67verdict"), @tagName(d.verdict));
        if (obligations > 0) p = d.writeObligations(writeHead(writeRaw(p, "\x6bobligations"), .list, obligations));
        const len = @intFromPtr(p) - out;
        return if (memory.failed or len > max_output) 0 else @as(u64, out) << 32 | len;
    }

    fn writeReasons(d: *const Decision, from: [*]u8) [*]u8 {
        var p = from;
        var r = d.reasons;
        while (r) |each| : (r = each.next) {
            p = writeText(writeRaw(p, "\xa2\x64code"), each.code);
            p = writeText(writeRaw(p, "\x64text"), each.text);
        }
        return p;
    }

    fn writeObligations(d: *const Decision, from: [*]u8) [*]u8 {
        var p = from;
        var o = d.obligations;
        while (o) |each| : (o = each.next) {
            const properties = each.properties.out.len > 1;
            if (each.type.len == 0) fail(); // the host takes none without a type
            p[0] = 0xa1 + @as(u8, @intFromBool(each.id.len > 0)) + @intFromBool(properties);
            p += 1;
            if (each.id.len > 0) p = writeText(writeRaw(p, "\x62id"), each.id);
            p = writeText(writeRaw(p, "\x64type"), each.type);
            if (properties) p = writeRaw(writeRaw(p, "\x6aproperties"), each.properties.out.text());
        }
        return p;
    }
};

/// Takes what is put when there is no memory for a document; the call has failed then.
var spare: Doc = .{};

// -- the host --

const host = struct {
    extern "holdfast_v1" fn log(level: i32, at: [*]const u8, len: usize) void;
    extern "holdfast_v1" fn now() i64;
    extern "holdfast_v1" fn match(pattern: i32, at: [*]const u8, len: usize) i32;
};

pub const Level = enum(i32) { debug, info, warn, err };

/// Hands the host a message, which it keeps beside the record: 32 of a decision,
/// 4 KiB in all.
pub fn log(level: Level, message: []const u8) void {
    host.log(@intFromEnum(level), message.ptr, message.len);
}

/// The request's instant in nanoseconds since 1970. It does not move during a call.
pub fn now() i64 {
    return host.now();
}

/// Whether the manifest's pattern of that number, from 0, matches. No such
/// pattern: false.
pub fn match(pattern: i32, t: []const u8) bool {
    return host.match(pattern, t.ptr, t.len) == 1;
}

// -- the contract --

export fn _initialize() void {
    memory.floor = aligned(@intFromPtr(&__heap_base));
    memory.end = @as(usize, @wasmMemorySize(0)) << 16;
    const left = memory.end - memory.floor;
    if (left < room) _ = grow(room - left);
}

export fn holdfast_abi_v1() i32 {
    return 0;
}

/// One input buffer. While configuring there is room below it for what is kept.
export fn holdfast_alloc(len: usize) usize {
    if (memory.floor == 0 or len > @as(usize, if (memory.ready) max_input else 1 << 28)) return 0;
    memory.failed = false;
    memory.top = memory.floor;
    const below = if (memory.ready) 0 else aligned(len + keep_extra);
    const at = allocate(below + len);
    memory.input = if (at == 0) 0 else at + below;
    memory.input_len = len;
    return memory.input;
}

fn document(at: usize, len: usize) ?Value {
    if (at == 0 or at != memory.input or len > memory.input_len) return null;
    return parse(@as([*]const u8, @ptrFromInt(at))[0..len]);
}

export fn holdfast_init(at: usize, len: usize) i32 {
    const doc = document(at, len) orelse return 1;
    memory.kept = memory.floor;
    if (memory.ready or !policy.configure(doc.get("params"), doc.get("data")) or memory.failed) return 1;
    memory.floor = aligned(memory.kept);
    memory.ready = true;
    return 0;
}

export fn holdfast_decide(at: usize, len: usize) u64 {
    if (!memory.ready) return 0;
    const request = document(at, len) orelse return 0;
    var d: Decision = .{};
    policy.decide(request, &d);
    return d.finish();
}
