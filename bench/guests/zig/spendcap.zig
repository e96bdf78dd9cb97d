//! A spend cap: the tools of a list may spend up to a cap, more needs approval.
const std = @import("std");
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

var tools: Value = .{};
var cap: i64 = 0;

pub fn configure(params: Value, _: Value) bool {
    tools = params.get("tools").keep();
    cap = params.get("cap").int() orelse -1;
    return tools.kind() == .list and cap >= 0;
}

pub fn decide(request: Value, d: *Decision) void {
    const tool = request.get("resource").get("id").text();
    const context = request.get("context");
    if (!listed(tool)) {
        d.text.add(tool);
        return say(d, "deny", "tool_denied", " is not an allowed tool");
    }
    const amount = whole(context.get("arguments").get("amount")) orelse
        return say(d, "deny", "amount_invalid", "the amount is not a whole number from 0");
    const before = context.get("spent");
    const spent = if (before.kind() == .absent) 0 else whole(before) orelse
        return say(d, "deny", "spent_invalid", "what was spent is not a whole number from 0");

    d.text.addInt(amount);
    d.text.add(" on top of ");
    d.text.addInt(spent);
    if (amount <= cap - spent) {
        say(d, "allow", "within_cap", " is within ");
    } else {
        say(d, "require_approval", "over_cap", " is more than ");
    }
    d.text.addInt(cap);
}

fn listed(tool: []const u8) bool {
    var all = tools.items();
    while (all.next()) |t| {
        if (t.kind() == .text and std.mem.eql(u8, t.text(), tool)) return true;
    }
    return false;
}

fn whole(v: Value) ?i64 {
    const n = v.int() orelse return null;
    return if (n >= 0) n else null;
}

fn say(d: *Decision, verdict: []const u8, code: []const u8, text: []const u8) void {
    d.verdict = verdict;
    d.code = code;
    d.text.add(text);
}
