// The tools of a list may spend up to a cap in a window of time; larger payments need approval.
import { Decision, MapOf, NO_TIME, Policy, Request, Value, now, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

class SpendCap extends Policy {
  cap: i64 = 0;
  approvalOver: i64 = 0;
  currency: Value = Value.absent;
  tools: Value = Value.absent;
  window: i64 = 0;

  configure(params: Value, data: Value): string | null {
    const cap = params.get("cap"), over = params.get("approval_over"), hours = params.get("window_hours");
    this.cap = cap.int;
    this.approvalOver = over.int;
    this.currency = params.get("currency");
    this.tools = params.get("tools");
    if (!isWhole(cap) || !isWhole(over)) return "cap and approval_over must be whole numbers from 0";
    if (!this.currency.isText) return "currency must be a text";
    if (!hours.isInt || hours.int < 1 || hours.int > 8760) return "window_hours must be a whole number from 1 to 8760";
    this.window = hours.int * HOUR;
    for (const tools = this.tools.items; tools.next();) if (!tools.value.isText) return "tools must be a list of names";
    return this.tools.isList ? null : "tools must be a list of names";
  }

  decide(request: Request, answer: Decision): void {
    const tool = request.resource.id, context = request.context;
    if (!this.listed(tool)) {
      answer.allow("not_a_payment").say(tool).say(" moves no money");
      return;
    }
    const args = context.get("arguments"), amount = args.get("amount");
    if (!isWhole(amount)) {
      answer.deny("amount_invalid").say("the amount is not a whole number from 0");
      return;
    }
    if (!args.get("currency").sameIgnoringCase(this.currency)) {
      answer.deny("currency_unknown").say("the cap is in ").say(this.currency);
      return;
    }
    const spent = context.get("spent");
    if (spent.exists && !isWhole(spent)) {
      answer.deny("spent_invalid").say("what was spent is not a whole number from 0");
      return;
    }
    const start = context.get("window_start");
    if (!start.exists) return this.judge(amount.int, spent.int, -1, answer);
    const from = start.time, time = now();
    if (from == NO_TIME) {
      answer.deny("window_invalid").say("the start of the window is not a time");
      return;
    }
    if (from > time) {
      answer.deny("window_invalid").say("the window begins in the future");
      return;
    }
    const passed = time - from;
    if (passed >= this.window) this.judge(amount.int, 0, this.window, answer);
    else this.judge(amount.int, spent.int, this.window - passed, answer);
  }

  /** Decides on an amount; `left` are the nanoseconds until the window ends, -1 when there is none. */
  private judge(amount: i64, spent: i64, left: i64, answer: Decision): void {
    const remaining = this.cap - spent;
    if (amount > remaining) {
      if (left < 0) answer.deny("over_cap");
      else answer.throttle("over_cap");
      answer.say(amount).say(" on top of ").say(spent).say(" is more than ").say(this.cap).say(" ").say(this.currency);
      if (left >= 0) answer.obligation("", "retry").set("after_seconds", (left + SECOND - 1) / SECOND);
    } else if (amount > this.approvalOver) {
      answer.requireApproval("needs_approval").say(amount).say(" is more than ").say(this.approvalOver).say(" ").say(this.currency);
    } else {
      answer.allow("within_cap").say(amount).say(" on top of ").say(spent).say(" is within ").say(this.cap).say(" ").say(this.currency);
      answer.value(new MapOf().set("remaining", remaining - amount));
    }
  }

  private listed(tool: Value): bool {
    for (const tools = this.tools.items; tools.next();) if (tools.value.same(tool)) return true;
    return false;
  }
}

function isWhole(value: Value): bool { return value.isInt && value.int >= 0; }

register(new SpendCap());
