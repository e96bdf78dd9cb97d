//! What a holdfast_v1 guest in Zig is written against: values of a request, the
//! answer, and the contract's exports. It allocates nothing. The root file
//! declares `configure` and `decide`.
const std = @import("std");
const policy = @import("root");

const max_depth = 40;
const Major = enum(u3) { uint, negint, bytes, text, list, map, tag, simple };

pub const Kind = enum { absent, null, bool, int, float, text, list, map };

/// A decision with one reason.
pub const Decision = struct {
    /// One of deny, require_approval, throttle, transform and allow.
    verdict: []const u8 = "deny",
    code: []const u8 = "",
    /// A text that does not fit makes the decision a guest error.
    text: Buffer(1024) = .{},
};

/// A view into a CBOR document that was checked before: the bytes from the
/// item's first on, none when it is absent. Every function of an absent value,
/// or of one of another kind, returns the zero of its result.
pub const Value = struct {
    doc: []const u8 = "",

    pub fn kind(v: Value) Kind {
        if (v.doc.len == 0) return .absent;
        return switch (v.doc[0]) {
            0xf4, 0xf5 => .bool,
            0xf6 => .null,
            else => |b| switch (@as(Major, @enumFromInt(b >> 5))) {
                .uint, .negint => .int,
                .text => .text,
                .list => .list,
                .map => .map,
                else => .float,
            },
        };
    }

    pub fn isTrue(v: Value) bool {
        return v.doc.len > 0 and v.doc[0] == 0xf5;
    }

    pub fn int(v: Value) ?i64 {
        const h = Head.read(v.doc) orelse return null;
        return switch (h.major) {
            .uint => @intCast(h.arg),
            .negint => -1 - @as(i64, @intCast(h.arg)),
            else => null,
        };
    }

    pub fn text(v: Value) []const u8 {
        const h = v.as(.text) orelse return "";
        return v.doc[h.size..][0..@intCast(h.arg)];
    }

    pub fn get(v: Value, key: []const u8) Value {
        const h = v.as(.map) orelse return .{};
        var b = v.doc[h.size..];
        for (0..@intCast(h.arg)) |_| {
            const value = skip(b);
            if (std.mem.eql(u8, (Value{ .doc = b }).text(), key)) return .{ .doc = value };
            b = skip(value);
        }
        return .{};
    }

    pub fn items(v: Value) Items {
        const h = v.as(.list) orelse return .{ .left = 0, .rest = "" };
        return .{ .left = h.arg, .rest = v.doc[h.size..] };
    }

    /// A copy that outlives the call, for configuration; absent when there is no room.
    pub fn keep(v: Value) Value {
        if (v.doc.len == 0) return .{};
        const size = v.doc.len - skip(v.doc).len;
        const from = kept.len;
        kept.add(v.doc[0..size]);
        return if (kept.full) .{} else .{ .doc = kept.at[from..kept.len] };
    }

    fn as(v: Value, major: Major) ?Head {
        const h = Head.read(v.doc) orelse return null;
        return if (h.major == major) h else null;
    }
};

pub const Items = struct {
    left: u64,
    rest: []const u8,

    pub fn next(i: *Items) ?Value {
        if (i.left == 0) return null;
        defer i.rest = skip(i.rest);
        i.left -= 1;
        return .{ .doc = i.rest };
    }
};

/// Bytes up to a bound. What does not fit is left out, and said.
pub fn Buffer(bound: u32) type {
    return struct {
        at: [bound]u8 = undefined,
        len: u32 = 0,
        full: bool = false,

        const Self = @This();

        pub fn add(b: *Self, more: []const u8) void {
            b.full = b.full or more.len > bound - b.len;
            if (b.full) return;
            @memcpy(b.at[b.len..][0..more.len], more);
            b.len += @intCast(more.len);
        }

        pub fn addInt(b: *Self, n: i64) void {
            var digits: [20]u8 = undefined;
            var at: usize = digits.len;
            var left = @abs(n);
            while (true) {
                at -= 1;
                digits[at] = '0' + @as(u8, @intCast(left % 10));
                left /= 10;
                if (left == 0) break;
            }
            if (n < 0) b.add("-");
            b.add(digits[at..]);
        }

        pub fn bytes(b: *const Self) []const u8 {
            return b.at[0..b.len];
        }

        fn addHead(b: *Self, major: Major, arg: usize) void {
            const top = @as(u8, @intFromEnum(major)) << 5;
            const low: u8 = @truncate(arg);
            switch (arg) {
                0...23 => b.add(&.{top | low}),
                24...255 => b.add(&.{ top | 24, low }),
                else => b.add(&.{ top | 25, @truncate(arg >> 8), low }),
            }
        }

        fn addText(b: *Self, t: []const u8) void {
            b.addHead(.text, t.len);
            b.add(t);
        }

        fn addDecision(b: *Self, d: *const Decision) void {
            b.addHead(.map, 2);
            b.addText("verdict");
            b.addText(d.verdict);
            b.addText("reasons");
            b.addHead(.list, 1);
            b.addHead(.map, 2);
            b.addText("code");
            b.addText(d.code);
            b.addText("text");
            b.addText(d.text.bytes());
            b.full = b.full or d.text.full;
        }
    };
}

const Head = struct {
    major: Major,
    arg: u64,
    size: usize,

    fn read(b: []const u8) ?Head {
        if (b.len == 0) return null;
        const major: Major = @enumFromInt(b[0] >> 5);
        const info: u5 = @truncate(b[0]);
        if (info < 24) return .{ .major = major, .arg = info, .size = 1 };
        if (info > 27) return null; // reserved, or an indefinite length
        const size = 1 + (@as(usize, 1) << (info - 24));
        if (b.len < size) return null;
        var arg: u64 = 0;
        for (b[1..size]) |c| arg = arg << 8 | c;
        return .{ .major = major, .arg = arg, .size = size };
    }
};

/// What is behind the first item of b, null when it is not what Holdfast
/// writes: definite lengths, text keys, no tags, no byte strings, max_depth levels.
fn check(b: []const u8, depth: u32) ?[]const u8 {
    const h = Head.read(b) orelse return null;
    if (depth > max_depth) return null;
    const body = b[h.size..];
    return switch (h.major) {
        .uint, .negint => if (h.arg <= std.math.maxInt(i64)) body else null,
        .text => if (h.arg <= body.len) body[@intCast(h.arg)..] else null,
        .list, .map => checkItems(body, h.arg, h.major == .map, depth + 1),
        .simple => if (if (h.size == 1) h.arg >= 20 and h.arg <= 22 else h.size > 2) body else null,
        else => null,
    };
}

fn checkItems(body: []const u8, n: u64, pairs: bool, depth: u32) ?[]const u8 {
    if (n > body.len) return null;
    var b = body;
    for (0..@intCast(n)) |_| {
        if (pairs) {
            if (b.len == 0 or b[0] >> 5 != @intFromEnum(Major.text)) return null;
            b = check(b, depth) orelse return null;
        }
        b = check(b, depth) orelse return null;
    }
    return b;
}

fn parse(doc: []const u8) ?Value {
    const rest = check(doc, 0) orelse return null;
    return if (rest.len == 0) .{ .doc = doc } else null;
}

/// What is behind the first item of a checked document.
fn skip(doc: []const u8) []const u8 {
    var b = doc;
    var left: u64 = 1;
    while (left > 0) : (left -= 1) {
        const h = Head.read(b) orelse return "";
        b = b[h.size..];
        switch (h.major) {
            .text => b = b[@intCast(h.arg)..],
            .list => left += h.arg,
            .map => left += 2 * h.arg,
            else => {},
        }
    }
    return b;
}

var input: [32 << 10]u8 = undefined;
var kept: Buffer(4 << 10) = .{};
var decision: Decision = .{};
var output: Buffer(1024 + 256) = .{};

export fn holdfast_abi_v1() i32 {
    return 0;
}

export fn holdfast_alloc(len: u32) ?[*]u8 {
    return if (len <= input.len) &input else null;
}

export fn holdfast_init(_: u32, len: u32) i32 {
    const doc = parse(input[0..@min(len, input.len)]) orelse return 1;
    return if (policy.configure(doc.get("params"), doc.get("data"))) 0 else 1;
}

export fn holdfast_decide(_: u32, len: u32) u64 {
    const request = parse(input[0..@min(len, input.len)]) orelse return 0;
    decision.verdict = "deny";
    decision.code = "";
    decision.text.len = 0;
    decision.text.full = false;
    policy.decide(request, &decision);
    output.len = 0;
    output.full = false;
    output.addDecision(&decision);
    return if (output.full) 0 else @as(u64, @intFromPtr(&output.at)) << 32 | output.len;
}
