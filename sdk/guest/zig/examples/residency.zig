//! Where data of a class may go.
const holdfast = @import("holdfast.zig");
const Decision = holdfast.Decision;
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

/// Class to its regions, region to how to go there, and a list of one class.
var allowed: Value = .{};
var routes: Value = .{};
var default_classes: Value = .{};

pub fn configure(params: Value, _: Value) bool {
    allowed = params.get("allowed").keep();
    routes = params.get("routes").keep();
    const class = params.get("default_class");
    if (allowed.kind() != .map or routes.kind() != .map or class.kind() != .text) return false;
    var rules = allowed.members();
    while (rules.next()) |rule| {
        if (!texts(rule.value)) return false;
    }
    var all = routes.members();
    while (all.next()) |route| {
        if (route.value.kind() != .map) return false;
    }
    var list: holdfast.Doc = .{};
    list.openList();
    list.putValue(class);
    list.close();
    default_classes = list.asValue().keep();
    return default_classes.exists();
}

fn texts(list: Value) bool {
    var all = list.items();
    while (all.next()) |item| {
        if (item.kind() != .text) return false;
    }
    return list.kind() == .list;
}

pub fn decide(request: Value, d: *Decision) void {
    const stated = request.path("context.data_classes");
    const classes = if (stated.exists()) stated else default_classes;
    if (!texts(classes) or classes.len() == 0) return d.answer(.deny, "class_invalid", "the data classes are not a list of names");
    var all = classes.items();
    while (all.next()) |item| {
        const class = item.text() orelse "";
        if (!allowed.get(class).exists()) return d.answer(.deny, "class_unknown", holdfast.text(.{ "no rule for class ", class }));
    }
    const region = request.path("resource.properties.region").text() orelse
        return d.answer(.deny, "region_unknown", "the resource does not say where it is");

    const refused = refusing(classes, region) orelse
        return d.answer(.allow, "in_region", holdfast.text(.{ region, " is allowed for ", joined(classes) }));
    const to = elsewhere(request, classes) orelse
        return d.answer(.deny, "no_region", holdfast.text(.{ "no region with a route is allowed for ", joined(classes) }));
    d.answer(.transform, "rerouted", holdfast.text(.{ region, " is not allowed for ", refused, ", ", to, " is" }));
    const properties = d.obligation("residency", "route");
    properties.key("region").putText(to);
    properties.key("target").putValue(routes.get(to));
}

/// The first class that does not allow the region; null when all do.
fn refusing(classes: Value, region: []const u8) ?[]const u8 {
    var all = classes.items();
    while (all.next()) |item| {
        const class = item.text() orelse "";
        const regions = allowed.get(class);
        if (!regions.lists(region) and !regions.lists("*")) return class;
    }
    return null;
}

/// Where the request may go instead.
fn elsewhere(request: Value, classes: Value) ?[]const u8 {
    if (request.path("subject.properties.region").text()) |home| {
        if (reachable(classes, home)) return home;
    }
    var all = classes.items();
    const first = all.next() orelse return null;
    var regions = allowed.get(first.text() orelse "").items();
    while (regions.next()) |item| {
        const region = item.text() orelse "";
        if (!holdfast.equal(region, "*") and reachable(classes, region)) return region;
    }
    return null;
}

fn reachable(classes: Value, region: []const u8) bool {
    return routes.get(region).exists() and refusing(classes, region) == null;
}

fn joined(classes: Value) []const u8 {
    var line: holdfast.Line = .{};
    var all = classes.items();
    var between: []const u8 = "";
    while (all.next()) |item| {
        line.add(between);
        line.add(item.text() orelse "");
        between = ", ";
    }
    return line.text();
}
