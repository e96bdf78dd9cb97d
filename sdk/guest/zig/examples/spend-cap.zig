//! How much may be spent by the tools of a list, in a window of time.
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

const second = 1_000_000_000;
const hour = 3600 * second;

var tools: Value = .{};
var currency: []const u8 = "";
var cap: i64 = 0;
var approval_over: i64 = 0;
var window: i64 = 0;

pub fn configure(params: Value, _: Value) bool {
    const hours = whole(params.get("window_hours")) orelse return false;
    cap = whole(params.get("cap")) orelse return false;
    approval_over = whole(params.get("approval_over")) orelse return false;
    currency = holdfast.keepText(params.get("currency").text() orelse return false) orelse return false;
    tools = params.get("tools").keep();
    if (hours < 1 or hours > 8760) return false;
    window = hours * hour;
    var all = tools.items();
    while (all.next()) |item| {
        if (item.kind() != .text) return false;
    }
    return tools.kind() == .list;
}

fn whole(v: Value) ?i64 {
    const n = v.int() orelse return null;
    return if (n >= 0) n else null;
}

pub fn decide(request: Value, d: *Decision) void {
    const tool = request.path("resource.id").text() orelse "";
    const context = request.get("context");
    const arguments = context.get("arguments");
    if (!tools.lists(tool)) return d.answer(.allow, "not_a_payment", holdfast.text(.{ tool, " moves no money" }));

    const amount = whole(arguments.get("amount")) orelse
        return d.answer(.deny, "amount_invalid", "the amount is not a whole number from 0");
    const in = arguments.get("currency").text();
    if (in == null or !holdfast.equalFold(in.?, currency))
        return d.answer(.deny, "currency_unknown", holdfast.text(.{ "the cap is in ", currency }));
    const before = context.get("spent");
    const spent = if (!before.exists()) 0 else whole(before) orelse
        return d.answer(.deny, "spent_invalid", "what was spent is not a whole number from 0");
    const start = context.get("window_start");
    if (!start.exists()) return pay(d, amount, spent, null);

    const from = holdfast.time(start.text() orelse "") orelse
        return d.answer(.deny, "window_invalid", "the start of the window is not a time");
    const now = holdfast.now();
    if (from > now) return d.answer(.deny, "window_invalid", "the window begins in the future");
    const passed: u64 = @as(u64, @bitCast(now)) -% @as(u64, @bitCast(from));
    if (passed >= window) return pay(d, amount, 0, window);
    pay(d, amount, spent, window - @as(i64, @intCast(passed)));
}

/// What was spent in a window that has so many nanoseconds left, or without one.
fn pay(d: *Decision, amount: i64, spent: i64, window_left: ?i64) void {
    const left = cap - spent;
    if (amount > left) {
        d.answer(if (window_left == null) .deny else .throttle, "over_cap", holdfast.text(.{ amount, " on top of ", spent, " is more than ", cap, " ", currency }));
        if (window_left) |ns| d.obligation("", "retry").key("after_seconds").putInt(@divTrunc(ns + second - 1, second));
        return;
    }
    if (amount > approval_over)
        return d.answer(.require_approval, "needs_approval", holdfast.text(.{ amount, " is more than ", approval_over, " ", currency }));
    d.answer(.allow, "within_cap", holdfast.text(.{ amount, " on top of ", spent, " is within ", cap, " ", currency }));
    const value = d.value();
    value.openMap();
    value.key("remaining").putInt(left - amount);
    value.close();
}
