//! A spend cap: the tools of a list may spend up to a cap, more needs approval.
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
    const tool = request.path("resource.id").text() orelse "";
    const context = request.get("context");
    if (!tools.lists(tool)) return d.answer(.deny, "tool_denied", holdfast.text(.{ tool, " is not an allowed tool" }));
    const amount = whole(context.path("arguments.amount")) orelse
        return d.answer(.deny, "amount_invalid", "the amount is not a whole number from 0");
    const before = context.get("spent");
    const spent = if (!before.exists()) 0 else whole(before) orelse
        return d.answer(.deny, "spent_invalid", "what was spent is not a whole number from 0");

    if (amount <= cap - spent)
        return d.answer(.allow, "within_cap", holdfast.text(.{ amount, " on top of ", spent, " is within ", cap }));
    d.answer(.require_approval, "over_cap", holdfast.text(.{ amount, " on top of ", spent, " is more than ", cap }));
}

fn whole(v: Value) ?i64 {
    const n = v.int() orelse return null;
    return if (n >= 0) n else null;
}
