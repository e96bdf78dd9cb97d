//! Does what context.do says, so that the tests reach every part of the SDK.
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Doc = holdfast.Doc;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

var params: Value = .{};

pub fn configure(given: Value, _: Value) bool {
    params = given.keep();
    return !given.get("refuse").exists() and params.exists();
}

pub fn decide(request: Value, d: *Decision) void {
    const context = request.get("context");
    const it = context.get("it");
    const by = context.get("by");
    const times = context.get("times").int() orelse 1;
    const what = context.get("do").text() orelse "";
    const a = it.text() orelse "";
    const b = by.text() orelse "";

    if (holdfast.equal(what, "say")) return say(d, a, it.int() orelse 0, times);
    if (holdfast.equal(what, "reasons")) return reasons(d, a, times);
    if (what.len == 0 or holdfast.equal(what, "nothing")) return;
    if (holdfast.equal(what, "kind")) return kind(d, it);
    if (holdfast.equal(what, "kept")) return kept(d);
    if (holdfast.equal(what, "request")) return all(d, request);
    if (holdfast.equal(what, "wrong")) return wrong(d, b, it, times);
    const out = d.value();
    if (holdfast.equal(what, "pages")) return out.putInt(@intCast(@wasmMemorySize(0)));
    if (holdfast.equal(what, "time")) return if (holdfast.time(a)) |ns| out.putInt(ns) else out.putNull();
    if (holdfast.equal(what, "copies")) {
        out.openList();
        for (0..@intCast(times)) |_| out.putValue(it);
        return out.close();
    }
    if (holdfast.equal(what, "float")) return out.putFloat(it.float() orelse -1);
    if (holdfast.equal(what, "divide")) return out.putFloat((it.float() orelse 0) / (by.float() orelse 0));
    if (holdfast.equal(what, "sort")) return sort(out, it);
    if (holdfast.equal(what, "members")) return members(out, it);
    if (holdfast.equal(what, "nest")) return nest(out, it);
    if (holdfast.equal(what, "case")) {
        const both = it.kind() == .text and by.kind() == .text;
        return bools(out, &.{ both and holdfast.equalFold(a, b), both and holdfast.equal(a, b), holdfast.equal(a, "größer") });
    }
    if (holdfast.equal(what, "parts")) return bools(out, &.{ holdfast.hasPrefix(a, b), holdfast.hasSuffix(a, b), holdfast.contains(a, b) });
    if (holdfast.equal(what, "allocate")) return allocate(out, @intCast(times));
    if (holdfast.equal(what, "host")) {
        holdfast.log(.warn, holdfast.text(.{ "at ", holdfast.now() }));
        return bools(out, &.{ holdfast.match(0, a), holdfast.match(1, a), holdfast.match(2, a) });
    }
    out.putValue(if (holdfast.equal(what, "copy")) it else .{});
}

fn bools(out: *Doc, list: []const bool) void {
    out.openList();
    for (list) |b| out.putBool(b);
    out.close();
}

fn say(d: *Decision, t: []const u8, n: i64, times: i64) void {
    var line: holdfast.Line = .{};
    for (0..@intCast(times)) |_| line.add(t);
    line.addInt(n);
    d.answer(.deny, "said", line.text());
}

fn reasons(d: *Decision, t: []const u8, times: i64) void {
    for (0..@intCast(times)) |n| {
        const i: i64 = @intCast(n);
        d.reason("one", holdfast.text(.{ i, t }));
        _ = d.obligation("", "first");
        d.obligation("größe", "second").key("n").putInt(i);
    }
}

fn kind(d: *Decision, it: Value) void {
    const size: i64 = @intCast(it.len());
    const yes: []const u8 = if (it.boolean() == true) " true" else "";
    d.answer(.allow, "kind", holdfast.text(.{ @tagName(it.kind()), " ", size, yes }));
}

fn kept(d: *Decision) void {
    var line: holdfast.Line = .{};
    var between: []const u8 = "";
    var words = params.get("words").items();
    while (words.next()) |word| {
        line.add(between);
        line.add(word.text() orelse "");
        between = " ";
    }
    d.answer(.allow, "kept", line.text());
    d.value().putValue(params);
}

fn all(d: *Decision, request: Value) void {
    var line: holdfast.Line = .{};
    inline for (.{ "point", "id", "subject.type", "subject.id", "action.name", "resource.type", "resource.id" }) |path| {
        line.add(request.path(path).text() orelse "");
        line.add("|");
    }
    d.answer(.allow, "request", line.text());
    bools(d.value(), &.{
        request.path("subject.properties.a").kind() == .int,
        request.path("resource.properties.a").exists(),
        request.performs("redact"),
        request.path("context.it.x").kind() == .null,
        request.get("document").exists(),
    });
}

fn sort(out: *Doc, keys: Value) void {
    var n: i64 = 0;
    out.openMap();
    var each = keys.items();
    while (each.next()) |key| : (n += 1) out.key(key.text() orelse "").putInt(n);
    out.close();
}

fn members(out: *Doc, map: Value) void {
    out.openMap();
    var each = map.members();
    while (each.next()) |member| {
        out.key(member.key).openList();
        out.putValue(member.value);
        out.putInt(@intCast(member.value.len()));
        out.close();
    }
    out.close();
}

fn nest(out: *Doc, it: Value) void {
    out.openMap();
    out.key("later").openList();
    out.openMap();
    out.close();
    out.putNull();
    out.putBool(true);
    out.openList();
    out.close();
    out.putInt(-1);
    out.close();
    out.key("a").openMap();
    out.key("zz").putValue(it);
    out.key("b").putFloat(0.5);
    out.key("a").putBool(false);
    out.close();
    out.key("").putText("größer");
    out.close();
}

fn allocate(out: *Doc, n: usize) void {
    const bytes = holdfast.alloc(u8, n) orelse return;
    var sum: i64 = 0;
    @memset(bytes, 7);
    for (bytes) |b| sum += b;
    out.putInt(sum);
}

/// A document that is not whole, or not one that the contract has.
fn wrong(d: *Decision, how: []const u8, it: Value, times: i64) void {
    const out = d.value();
    const n: usize = @intCast(times);
    if (holdfast.equal(how, "not closed")) out.openList();
    if (holdfast.equal(how, "no value")) {
        out.openMap();
        _ = out.key("a");
        out.close();
    }
    if (holdfast.equal(how, "no key")) {
        out.openMap();
        out.putNull();
        out.close();
    }
    if (holdfast.equal(how, "key of a list")) {
        out.openList();
        _ = out.key("a");
        out.close();
    }
    if (holdfast.equal(how, "two")) {
        out.putNull();
        out.putNull();
    }
    if (holdfast.equal(how, "closed twice")) {
        out.openList();
        out.close();
        out.close();
    }
    if (holdfast.equal(how, "no type")) {
        out.putNull();
        _ = d.obligation("id", "");
    }
    if (holdfast.equal(how, "open property")) {
        out.putNull();
        d.obligation("", "a").key("b").openList();
    }
    if (holdfast.equal(how, "failed")) {
        out.putNull();
        holdfast.fail();
    }
    if (holdfast.equal(how, "deep")) {
        for (0..n) |_| out.openList();
        if (it.exists()) out.putValue(it);
        for (0..n) |_| out.close();
    }
    if (holdfast.equal(how, "cut")) {
        const t = it.text() orelse "";
        out.putText(t[0..@min(t.len, n)]);
    }
}
