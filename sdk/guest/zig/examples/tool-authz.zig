//! Who may call which tool, through how many delegations.
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

/// Role to its tools, and subject to its roles.
var roles: Value = .{};
var users: Value = .{};
var max_delegation: i64 = 0;

pub fn configure(params: Value, data: Value) bool {
    roles = data.get("roles").keep();
    users = data.get("users").keep();
    max_delegation = params.get("max_delegation").int() orelse return false;
    return max_delegation >= 0 and listsOfTexts(roles) and listsOfTexts(users);
}

fn listsOfTexts(map: Value) bool {
    var all = map.members();
    while (all.next()) |member| {
        if (!texts(member.value)) return false;
    }
    return map.kind() == .map;
}

fn texts(list: Value) bool {
    var all = list.items();
    while (all.next()) |item| {
        if (item.kind() != .text) return false;
    }
    return list.kind() == .list;
}

pub fn decide(request: Value, d: *Decision) void {
    const resource = request.get("resource");
    const kind = resource.get("type").text() orelse "";
    const tool = resource.get("id").text() orelse "";
    const subject = request.path("subject.id").text() orelse "";
    const delegation = request.path("context.delegation");

    if (!holdfast.equal(kind, "tool")) return d.answer(.deny, "not_a_tool", holdfast.text(.{ "a ", kind, " is not a tool" }));
    if (!holdfast.match(0, tool)) return d.answer(.deny, "tool_name_invalid", "the name of the tool is not valid");
    if (delegation.exists() and delegation.kind() != .list) return notNames(d);
    const deep: i64 = @intCast(delegation.len());
    if (deep > max_delegation) return d.answer(.deny, "delegation_too_deep", holdfast.text(.{ deep, " delegations, at most ", max_delegation }));
    const by = granted(subject, tool);
    if (by == .nothing) return d.answer(.deny, "tool_not_granted", holdfast.text(.{ subject, " may not call ", tool }));

    var all = delegation.items();
    while (all.next()) |item| {
        const name = item.text() orelse return notNames(d);
        if (granted(name, tool) == .nothing)
            return d.answer(.deny, "delegator_not_granted", holdfast.text(.{ name, ", who delegated, may not call ", tool }));
    }
    if (by == .star) holdfast.log(.info, holdfast.text(.{ subject, " used a role that may call everything" }));
    d.answer(.allow, "granted", holdfast.text(.{ subject, " may call ", tool }));
}

fn notNames(d: *Decision) void {
    d.answer(.deny, "delegation_invalid", "the delegation is not a list of names");
}

const Grant = enum { nothing, name, star };

fn granted(subject: []const u8, tool: []const u8) Grant {
    var roles_of = users.get(subject).items();
    while (roles_of.next()) |role| {
        var tools = roles.get(role.text() orelse "").items();
        while (tools.next()) |item| {
            const listed = item.text() orelse "";
            if (holdfast.equal(listed, tool)) return .name;
            if (holdfast.equal(listed, "*")) return .star;
        }
    }
    return .nothing;
}
