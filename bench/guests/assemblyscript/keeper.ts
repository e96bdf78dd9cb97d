// Tries to keep a counter, a random pool and a secret across calls, in memory
// and in globals, and answers what it found of the calls before.
import { configured, decide, decided, get, is, length, say, sayInt, sayText, text, Value } from "./holdfast";

export { holdfast_abi_v1, holdfast_alloc } from "./holdfast";
export function holdfast_init(at: usize, n: u32): i32 { return configured(at, n, configure); }
export function holdfast_decide(at: usize, n: u32): u64 { return decided(at, n, answer); }

const POOL_BYTES: u32 = 16 << 10;
const STEP: u32 = 2 << 10;
const pool = memory.data(POOL_BYTES);
const secret = memory.data(64);
let secretLength: u32 = 0; // a WebAssembly global, as every variable here
let calls: i64 = 0;
let firstPages: i32 = 0;

function configure(params: Value, data: Value): bool {
  firstPages = memory.size();
  return true;
}

function answer(request: Value): void {
  const id = get(get(request, "subject"), "id");
  decide("deny", "kept");
  say("calls ");
  sayInt(calls++);
  say(", pages ");
  sayInt(memory.size() - firstPages);
  say(", pool ");
  sayInt(stir(length(id)));
  say(", secret ");
  sayText(secret, secretLength);
  secretLength = min(length(id), 64);
  memory.copy(secret, text(id), secretLength);
  if (is(id, "grow")) memory.grow(1);
}

function stir(seed: u32): u32 {
  let found: u32 = 0;
  for (let p = pool; p < pool + POOL_BYTES; p += STEP) {
    const word = load<u32>(p);
    found |= word;
    seed += word * 747796405 + 2891336453;
    store<u32>(p, seed);
  }
  return found;
}
