//! Tries to keep a counter, a random pool and a secret across calls, and
//! answers what it found of the calls before.
const std = @import("std");
const holdfast = @import("holdfast.zig");
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

const step = 512;

var calls: i64 = 0;
var pool: [4096]u32 = @splat(0);
var secret: holdfast.Buffer(64) = .{};
var first_pages: usize = 0;

pub fn configure(_: Value, _: Value) bool {
    first_pages = @wasmMemorySize(0);
    return true;
}

pub fn decide(request: Value, d: *holdfast.Decision) void {
    const id = request.get("subject").get("id").text();
    d.code = "kept";
    d.text.add("calls ");
    d.text.addInt(calls);
    d.text.add(", pages ");
    d.text.addInt(@intCast(@wasmMemorySize(0) - first_pages));
    d.text.add(", pool ");
    d.text.addInt(stir(@intCast(id.len)));
    d.text.add(", secret ");
    d.text.add(secret.bytes());
    calls += 1;
    secret = .{};
    secret.add(id[0..@min(id.len, secret.at.len)]);
    if (std.mem.eql(u8, id, "grow")) _ = @wasmMemoryGrow(0, 1);
}

fn stir(first: u32) u32 {
    var seed = first;
    var found: u32 = 0;
    var i: usize = 0;
    while (i < pool.len) : (i += step) {
        found |= pool[i];
        seed +%= pool[i] *% 747796405 +% 2891336453;
        pool[i] = seed;
    }
    return found;
}
