// Usage: calls.mjs MODULE INIT STALE REQUEST N. Makes N calls without restoring
// memory, which must neither grow nor change the answer, and prints the answer.
// Before each, STALE lies in the input buffer.
import { readFileSync } from "node:fs";

const [file, init, stale, request, calls] = process.argv.slice(2);
const host = { log() {}, now: () => 0n, match: () => 0 };
const { instance } = await WebAssembly.instantiate(readFileSync(file), { holdfast_v1: host });
const guest = instance.exports;

guest._initialize?.();

function give(hex) {
  const bytes = Buffer.from(hex, "hex");
  const at = guest.holdfast_alloc(bytes.length);
  new Uint8Array(guest.memory.buffer).set(bytes, at);
  return [at, bytes.length];
}

if (guest.holdfast_init(...give(init)) !== 0) throw new Error("not initialised");
let first, memory;
for (let n = 0; n < Number(calls); n++) {
  give(stale);
  const answer = guest.holdfast_decide(...give(request));
  const at = Number(answer >> 32n), length = Number(answer & 0xffffffffn);
  const hex = Buffer.from(guest.memory.buffer, at, length).toString("hex");
  first ??= hex;
  memory ??= guest.memory.buffer.byteLength;
  if (hex !== first) throw new Error(`call ${n}: ${hex}, first ${first}`);
  if (guest.memory.buffer.byteLength !== memory) throw new Error(`call ${n}: memory grew from ${memory} bytes`);
}
console.log(first);
