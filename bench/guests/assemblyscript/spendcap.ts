// A spend cap: the tools of a list may spend up to a cap, more needs approval.
import { configured, decide, decided, first, get, int, keep, Kind, kindOf, length, next, same, say, sayInt, sayText, text, Value } from "./holdfast";

export { holdfast_abi_v1, holdfast_alloc } from "./holdfast";
export function holdfast_init(at: usize, n: u32): i32 { return configured(at, n, configure); }
export function holdfast_decide(at: usize, n: u32): u64 { return decided(at, n, spendCap); }

let tools: Value = 0;
let cap: i64 = 0;

function configure(params: Value, data: Value): bool {
  const amount = get(params, "cap");
  tools = keep(get(params, "tools"));
  cap = int(amount);
  return kindOf(tools) == Kind.List && whole(amount);
}

function spendCap(request: Value): void {
  const tool = get(get(request, "resource"), "id");
  const context = get(request, "context");
  const amount = get(get(context, "arguments"), "amount");
  const spent = get(context, "spent");
  if (!listed(tool)) {
    decide("deny", "tool_denied");
    sayText(text(tool), length(tool));
    return say(" is not an allowed tool");
  }
  if (!whole(amount)) {
    decide("deny", "amount_invalid");
    return say("the amount is not a whole number from 0");
  }
  if (spent != 0 && !whole(spent)) {
    decide("deny", "spent_invalid");
    return say("what was spent is not a whole number from 0");
  }

  sayInt(int(amount));
  say(" on top of ");
  sayInt(int(spent));
  if (int(amount) <= cap - int(spent)) {
    decide("allow", "within_cap");
    say(" is within ");
  } else {
    decide("require_approval", "over_cap");
    say(" is more than ");
  }
  sayInt(cap);
}

function listed(tool: Value): bool {
  let item = first(tools);
  for (let n = length(tools); n > 0; n--, item = next(item))
    if (kindOf(item) == Kind.Text && same(item, tool)) return true;
  return false;
}

function whole(v: Value): bool { return kindOf(v) == Kind.Int && int(v) >= 0; }
