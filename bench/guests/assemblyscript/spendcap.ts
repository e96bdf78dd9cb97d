// A spend cap: the tools of a list may spend up to a cap, more needs approval.
import { Decision, Policy, Request, Value, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

class SpendCap extends Policy {
  tools: Value = Value.absent;
  cap: i64 = 0;

  configure(params: Value, data: Value): string | null {
    this.tools = params.get("tools");
    this.cap = params.get("cap").int;
    return this.tools.isList && isWhole(params.get("cap")) ? null : "tools must be a list, cap a whole number from 0";
  }

  decide(request: Request, answer: Decision): void {
    const tool = request.resource.id, context = request.context;
    const amount = context.get("arguments").get("amount"), spent = context.get("spent");
    if (!this.lists(tool)) {
      answer.deny("tool_denied").say(tool).say(" is not an allowed tool");
      return;
    }
    if (!isWhole(amount)) {
      answer.deny("amount_invalid").say("the amount is not a whole number from 0");
      return;
    }
    if (spent.exists && !isWhole(spent)) {
      answer.deny("spent_invalid").say("what was spent is not a whole number from 0");
      return;
    }
    const within = amount.int <= this.cap - spent.int;
    if (within) answer.allow("within_cap");
    else answer.requireApproval("over_cap");
    answer.say(amount).say(" on top of ").say(spent.int).say(within ? " is within " : " is more than ").say(this.cap);
  }

  private lists(tool: Value): bool {
    for (const tools = this.tools.items; tools.next();) if (tools.value.same(tool)) return true;
    return false;
  }
}

function isWhole(value: Value): bool { return value.isInt && value.int >= 0; }

register(new SpendCap());
