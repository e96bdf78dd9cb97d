//! Does what `context.do` says, so that the tests reach every part of the SDK.
#![no_std]
mod holdfast;
use holdfast::alloc::{string::String, vec::Vec};
use holdfast::{Decision, Kind, Level, Policy, Request, Text, Value, list, map};

struct Probe {
    params: Value<'static>,
    made: Vec<String>, // by configure, in the arena
}

holdfast::export!(Probe);

impl Policy for Probe {
    fn configure(params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
        if params.get("refuse").exists() {
            return Err("told to refuse");
        }
        Ok(Probe { params, made: params.get("words").items().filter_map(Value::text).map(String::from).collect() })
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let context = request.context();
        let (it, times) = (context.get("it"), context.get("times").int().unwrap_or(1));
        match context.get("do").text().unwrap_or_default() {
            "time" => match it.time() {
                Some(ns) => answer.value(ns),
                None => answer.value(()),
            },
            "copy" => answer.value(it),
            "copies" => answer.value(list(|l| (0..times).for_each(|_| l.push(it)))),
            "float" => answer.value(it.float().unwrap_or(-1.0)),
            "divide" => answer.value(it.float().unwrap_or_default() / context.get("by").float().unwrap_or_default()),
            "sort" => answer.value(map(|m| it.items().enumerate().for_each(|(i, key)| m.set(key.text().unwrap_or_default(), i)))),
            "members" => answer.value(map(|m| it.members().for_each(|(key, value)| m.set(key, list(|l| { l.push(value); l.push(value.len()) }))))),
            "nest" => answer.value(map(|m| {
                m.set("later", list(|l| {
                    l.push(map(|_| {}));
                    l.push(());
                    l.push(true);
                    l.push(list(|_| {}));
                    l.push(-1);
                }));
                m.set("a", map(|n| { n.set("zz", it); n.set("b", 0.5); n.set("a", false) }));
                m.set("", "größer");
            })),
            "say" => {
                let mut reason = answer.deny("said");
                for _ in 0..times {
                    reason = reason.say(it.text().unwrap_or_default());
                }
                reason.say(it.int().unwrap_or_default());
            }
            "reasons" => {
                for i in 0..times {
                    answer.reason("one").say(i).say(it.text().unwrap_or_default());
                    answer.obligation("", "first", |_| {});
                    answer.obligation("größe", "second", |p| p.set("n", i));
                }
            }
            "pages" => answer.value(core::arch::wasm32::memory_size(0)),
            "kind" => {
                let kind = ["absent", "null", "bool", "int", "float", "text", "list", "map"][it.kind() as usize];
                answer.allow("kind").say(kind).say(" ").say(it.len()).say(if it.bool() == Some(true) { " true" } else { "" });
            }
            "case" => {
                let same = it.text().zip(context.get("by").text()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
                answer.value(list(|l| { l.push(same); l.push(it.is(context.get("by").text().unwrap_or_default())); l.push(it == "größer") }));
            }
            "allocate" => {
                let mut bytes = Vec::new();
                bytes.resize(times as usize, 7u8);
                answer.value(bytes.iter().map(|b| *b as usize).sum::<usize>());
            }
            "kept" => {
                answer.allow("kept").say(self.made.join(" ").as_str());
                answer.value(self.params);
            }
            "host" => {
                holdfast::log(Level::Warn, Text::new().say("at ").say(holdfast::now()).as_str());
                answer.value(list(|l| (0..3).for_each(|i| l.push(holdfast::matches(i, it.text().unwrap_or_default())))));
            }
            "request" => {
                let (s, r) = (request.subject(), request.resource());
                let mut say = answer.allow("request");
                for part in [request.point(), request.id(), s.type_name(), s.id(), request.action(), r.type_name(), r.id()] {
                    say = say.say(part).say("|");
                }
                answer.value(list(|l| {
                    l.push(s.property("a").kind() == Kind::Int);
                    l.push(r.property("a").exists());
                    l.push(request.performs("redact"));
                    l.push(request.path(&["context", "it", "x"]).is_null());
                    l.push(request.document().exists());
                }));
            }
            _ => {}
        }
    }
}
