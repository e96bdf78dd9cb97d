//! A spend cap: the tools of a list may spend up to a cap, more needs approval.
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

/// The measuring guests take no more.
pub const holdfast_max_input = 32 << 10;
const max_kept = 4 << 10;
const max_line = 1 << 10;

var tools: Value = .{};
var cap: i64 = 0;

pub fn configure(params: Value, _: Value) bool {
    tools = params.get("tools").keep();
    cap = params.get("cap").int() orelse -1;
    return tools.kind() == .list and fits(tools) and cap >= 0;
}

/// Whether the list's texts are few enough to keep.
fn fits(list: Value) bool {
    var bytes: usize = 0;
    var all = list.items();
    while (all.next()) |item| bytes +|= item.len();
    return bytes <= max_kept;
}

pub fn decide(request: Value, d: *Decision) void {
    const tool = request.path("resource.id").text() orelse "";
    const context = request.get("context");
    if (!tools.lists(tool)) return say(d, .deny, "tool_denied", holdfast.text(.{ tool, " is not an allowed tool" }));
    const amount = whole(context.path("arguments.amount")) orelse
        return say(d, .deny, "amount_invalid", "the amount is not a whole number from 0");
    const before = context.get("spent");
    const spent = if (!before.exists()) 0 else whole(before) orelse
        return say(d, .deny, "spent_invalid", "what was spent is not a whole number from 0");

    if (amount <= cap - spent)
        return say(d, .allow, "within_cap", holdfast.text(.{ amount, " on top of ", spent, " is within ", cap }));
    say(d, .require_approval, "over_cap", holdfast.text(.{ amount, " on top of ", spent, " is more than ", cap }));
}

fn whole(v: Value) ?i64 {
    const n = v.int() orelse return null;
    return if (n >= 0) n else null;
}

fn say(d: *Decision, verdict: holdfast.Verdict, code: []const u8, text: []const u8) void {
    if (text.len > max_line) holdfast.fail();
    d.answer(verdict, code, text);
}
