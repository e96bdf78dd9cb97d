// Does what `context.do` says, so that the tests reach every part of the SDK.
import { Decision, Level, ListOf, MapOf, NO_TIME, Policy, Request, Text, Value, log, matches, now, register } from "./holdfast";
export { holdfast_abi_v1, holdfast_alloc, holdfast_decide, holdfast_init } from "./holdfast";

const KINDS: StaticArray<string> = ["absent", "null", "bool", "int", "float", "text", "list", "map"];

class Probe extends Policy {
  params: Value = Value.absent;
  made: Array<string> = []; // by configure, in the arena

  configure(params: Value, data: Value): string | null {
    this.params = params;
    for (const words = params.get("words").items; words.next();) this.made.push(words.value.text);
    return params.get("refuse").exists ? "told to refuse" : null;
  }

  decide(request: Request, answer: Decision): void {
    const context = request.context;
    const it = context.get("it"), by = context.get("by"), todo = context.get("do").text;
    const times = context.get("times").isInt ? context.get("times").int : 1;
    if (todo == "time") {
      if (it.time == NO_TIME) answer.valueNull();
      else answer.value(it.time);
    } else if (todo == "copy") {
      answer.value(it);
    } else if (todo == "copies") {
      const l = new ListOf();
      for (let i: i64 = 0; i < times; i++) l.push(it);
      answer.value(l);
    } else if (todo == "float") {
      answer.value(it.isInt || it.isFloat ? it.float : -1.0);
    } else if (todo == "divide") {
      answer.value(it.float / by.float);
    } else if (todo == "sort") {
      const m = new MapOf();
      let i = 0;
      for (const keys = it.items; keys.next();) m.set(keys.value.text, i++);
      answer.value(m);
    } else if (todo == "members") {
      const m = new MapOf();
      for (const members = it.members; members.next();) m.set(members.key.text, new ListOf().push(members.value).push(members.value.length));
      answer.value(m);
    } else if (todo == "nest") {
      const later = new ListOf().push(new MapOf()).pushNull().push(true).push(new ListOf()).push(-1);
      answer.value(new MapOf().set("later", later).set("a", new MapOf().set("zz", it).set("b", 0.5).set("a", false)).set("", "größer"));
    } else if (todo == "say") {
      answer.deny("said");
      for (let i: i64 = 0; i < times; i++) answer.say(it.text);
      answer.say(it.int);
    } else if (todo == "reasons") {
      for (let i: i64 = 0; i < times; i++) {
        answer.reason("one").say(i).say(it);
        answer.obligation("", "first");
        answer.obligation("größe", "second").set("n", i);
      }
    } else if (todo == "pages") {
      answer.value(memory.size());
    } else if (todo == "kind") {
      answer.allow("kind").say(KINDS[it.kind]).say(" ").say(it.length).say(it.bool ? " true" : "");
    } else if (todo == "case") {
      answer.value(new ListOf().push(it.sameIgnoringCase(by)).push(it.is(by.text)).push(it.is("größer")));
    } else if (todo == "allocate") {
      const bytes = new Uint8Array(<i32>times).fill(7);
      let sum = 0;
      for (let i = 0; i < bytes.length; i++) sum += bytes[i];
      answer.value(sum);
    } else if (todo == "kept") {
      answer.allow("kept").say(this.made.join(" "));
      answer.value(this.params);
    } else if (todo == "host") {
      log(Level.Warn, new Text().say("at ").say(now()));
      answer.value(new ListOf().push(matches(0, it)).push(matches(1, it)).push(matches(2, it)));
    } else if (todo == "request") {
      const s = request.subject, r = request.resource;
      answer.allow("request").say(request.point).say("|").say(request.id).say("|").say(s.type).say("|").say(s.id).say("|");
      answer.say(request.action).say("|").say(r.type).say("|").say(r.id).say("|");
      answer.value(new ListOf().push(s.property("a").isInt).push(r.property("a").exists).push(request.performs("redact"))
        .push(it.get("x").isNull).push(request.document.exists));
    }
  }
}

register(new Probe());
