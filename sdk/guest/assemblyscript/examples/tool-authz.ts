// Who may call which tool, through how many delegations.
import { Decision, Level, Policy, Request, Text, Value, log, matches, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

class ToolAuthz extends Policy {
  roles: Value = Value.absent;
  users: Value = Value.absent;
  maxDelegation: i64 = 0;

  configure(params: Value, data: Value): string | null {
    const max = params.get("max_delegation");
    this.roles = data.get("roles");
    this.users = data.get("users");
    this.maxDelegation = max.int;
    if (!mapsToTexts(this.roles) || !mapsToTexts(this.users)) return "data: roles and users must map names to lists of names";
    return max.isInt && max.int >= 0 ? null : "max_delegation must be a whole number from 0";
  }

  decide(request: Request, answer: Decision): void {
    const subject = request.subject.id, resource = request.resource, tool = resource.id;
    if (!resource.type.is("tool")) {
      answer.deny("not_a_tool").say("a ").say(resource.type).say(" is not a tool");
      return;
    }
    if (!matches(0, tool)) {
      answer.deny("tool_name_invalid").say("the name of the tool is not valid");
      return;
    }
    const delegation = request.context.get("delegation");
    if (delegation.exists && !delegation.isList) return notNames(answer);
    if (delegation.length > this.maxDelegation) {
      answer.deny("delegation_too_deep").say(delegation.length).say(" delegations, at most ").say(this.maxDelegation);
      return;
    }
    const hit = this.grant(subject, tool);
    if (!hit.exists) {
      answer.deny("tool_not_granted").say(subject).say(" may not call ").say(tool);
      return;
    }
    for (const names = delegation.items; names.next();) {
      if (!names.value.isText) return notNames(answer);
      if (!this.grant(names.value, tool).exists) {
        answer.deny("delegator_not_granted").say(names.value).say(", who delegated, may not call ").say(tool);
        return;
      }
    }
    if (hit.is("*")) log(Level.Info, new Text().say(subject).say(" used a role that may call everything"));
    answer.allow("granted").say(subject).say(" may call ").say(tool);
  }

  /** What grants the tool: its name in one of the subject's roles, or `*`. */
  private grant(subject: Value, tool: Value): Value {
    for (const roles = this.users.find(subject).items; roles.next();) {
      for (const tools = this.roles.find(roles.value).items; tools.next();) {
        if (tools.value.same(tool) || tools.value.is("*")) return tools.value;
      }
    }
    return Value.absent;
  }
}

function notNames(answer: Decision): void {
  answer.deny("delegation_invalid").say("the delegation is not a list of names");
}

function mapsToTexts(value: Value): bool {
  for (const members = value.members; members.next();) {
    if (!members.value.isList) return false;
    for (const items = members.value.items; items.next();) if (!items.value.isText) return false;
  }
  return value.isMap;
}

register(new ToolAuthz());
