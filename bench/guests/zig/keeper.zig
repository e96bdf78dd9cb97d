//! Tries to keep a counter, a random pool and a secret across calls, and
//! answers what it found of the calls before.
const holdfast = @import("holdfast.zig");
const Value = holdfast.Value;

comptime {
    _ = holdfast; // its exports
}

const step = 512;

var calls: i64 = 0;
var pool: [4096]u32 = @splat(0);
var secret: [64]u8 = undefined;
var secret_len: usize = 0;
var first_pages: usize = 0;

pub fn configure(_: Value, _: Value) bool {
    first_pages = @wasmMemorySize(0);
    return true;
}

pub fn decide(request: Value, d: *holdfast.Decision) void {
    const id = request.path("subject.id").text() orelse "";
    const pages: i64 = @intCast(@wasmMemorySize(0) - first_pages);
    const found: i64 = stir(@intCast(id.len));
    d.answer(.deny, "kept", holdfast.text(.{ "calls ", calls, ", pages ", pages, ", pool ", found, ", secret ", secret[0..secret_len] }));
    calls += 1;
    secret_len = @min(id.len, secret.len);
    @memcpy(secret[0..secret_len], id[0..secret_len]);
    if (holdfast.equal(id, "grow")) _ = @wasmMemoryGrow(0, 1);
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
