// Data of a class stays in the regions that its rule allows; requests elsewhere are routed to one of them.
import { Decision, Policy, Request, Value, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

class Residency extends Policy {
  allowed: Value = Value.absent;
  routes: Value = Value.absent;
  defaultClass: Value = Value.absent;

  configure(params: Value, data: Value): string | null {
    this.allowed = params.get("allowed");
    this.routes = params.get("routes");
    this.defaultClass = params.get("default_class");
    for (const rules = this.allowed.members; rules.next();) if (!isNames(rules.value)) return "allowed must map classes to lists of regions";
    for (const routes = this.routes.members; routes.next();) if (!routes.value.isMap) return "routes must map regions to maps";
    return this.allowed.isMap && this.routes.isMap && this.defaultClass.isText ? null : "allowed and routes must be maps, default_class a text";
  }

  decide(request: Request, answer: Decision): void {
    const named = request.context.get("data_classes");
    if (named.exists && (!isNames(named) || named.length == 0)) {
      answer.deny("class_invalid").say("the data classes are not a list of names");
      return;
    }
    const classes = this.classesOf(named);
    for (let i = 0; i < classes.length; i++) {
      if (this.allowed.find(classes[i]).exists) continue;
      answer.deny("class_unknown").say("no rule for class ").say(classes[i]);
      return;
    }
    const region = request.resource.property("region");
    if (!region.isText) {
      answer.deny("region_unknown").say("the resource does not say where it is");
      return;
    }
    const forbids = this.forbidding(classes, region);
    if (!forbids.exists) return sayClasses(answer.allow("in_region").say(region).say(" is allowed for "), classes);
    const to = this.reroute(request.subject.property("region"), classes);
    if (!to.exists) return sayClasses(answer.deny("no_region").say("no region with a route is allowed for "), classes);
    answer.transform("rerouted").say(region).say(" is not allowed for ").say(forbids).say(", ").say(to).say(" is");
    answer.obligation("residency", "route").set("region", to).set("target", this.routes.find(to));
  }

  private classesOf(named: Value): Array<Value> {
    const classes = new Array<Value>();
    if (!named.exists) classes.push(this.defaultClass);
    for (const items = named.items; items.next();) classes.push(items.value);
    return classes;
  }

  /** The first class that does not allow the region; absent when all do. */
  private forbidding(classes: Array<Value>, region: Value): Value {
    for (let i = 0; i < classes.length; i++) {
      let allows = false;
      for (const regions = this.allowed.find(classes[i]).items; !allows && regions.next();) {
        allows = regions.value.same(region) || regions.value.is("*");
      }
      if (!allows) return classes[i];
    }
    return Value.absent;
  }

  /** Where to go instead: home if it may be, else the first class's first region that may. */
  private reroute(home: Value, classes: Array<Value>): Value {
    if (this.may(home, classes)) return home;
    for (const regions = this.allowed.find(classes[0]).items; regions.next();) {
      if (!regions.value.is("*") && this.may(regions.value, classes)) return regions.value;
    }
    return Value.absent;
  }

  private may(region: Value, classes: Array<Value>): bool {
    return this.routes.find(region).exists && !this.forbidding(classes, region).exists;
  }
}

function sayClasses(reason: Decision, classes: Array<Value>): void {
  for (let i = 0; i < classes.length; i++) reason.say(i == 0 ? "" : ", ").say(classes[i]);
}

function isNames(value: Value): bool {
  for (const items = value.items; items.next();) if (!items.value.isText) return false;
  return value.isList;
}

register(new Residency());
