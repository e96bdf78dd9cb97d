// Tries to keep a counter, a random pool and a secret across calls, in memory
// and in globals, and answers what it found of the calls before.
import { Decision, Policy, Request, Value, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

const POOL_BYTES: u32 = 16 << 10;
const STEP: u32 = 2 << 10;
const pool = memory.data(POOL_BYTES);
let secret: string = ""; // a WebAssembly global, as every variable here
let calls: i64 = 0;
let firstPages: i32 = 0;

class Keeper extends Policy {
  configure(params: Value, data: Value): string | null {
    firstPages = memory.size();
    return null;
  }

  decide(request: Request, answer: Decision): void {
    const id = request.subject.id;
    answer.deny("kept").say("calls ").say(calls++).say(", pages ").say(memory.size() - firstPages);
    answer.say(", pool ").say(stir(id.length)).say(", secret ").say(secret);
    secret = id.text;
    if (id.is("grow")) memory.grow(1);
  }
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

register(new Keeper());
