//! Data of a class stays in the regions that its rule allows; requests elsewhere are routed to one of them.
#![no_std]
mod holdfast;
use holdfast::{Decision, Kind, Policy, Request, Sentence, Value};

struct Residency {
    allowed: Value<'static>,
    routes: Value<'static>,
    default_class: Value<'static>,
}

holdfast::export!(Residency);

/// The classes of a request: a list, or the default class alone.
#[derive(Clone, Copy)]
struct Classes<'a>(Value<'a>);

impl<'a> Classes<'a> {
    fn iter(self) -> impl Iterator<Item = &'a str> {
        self.0.text().into_iter().chain(self.0.items().filter_map(Value::text))
    }

    fn say<'s>(self, mut reason: Sentence<'s>) -> Sentence<'s> {
        for (i, class) in self.iter().enumerate() {
            reason = reason.say(if i == 0 { "" } else { ", " }).say(class);
        }
        reason
    }
}

impl Policy for Residency {
    fn configure(params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
        let (allowed, routes, default_class) = (params.get("allowed"), params.get("routes"), params.get("default_class"));
        if allowed.kind() != Kind::Map || !allowed.members().all(|(_, regions)| is_names(regions)) {
            return Err("allowed must map classes to lists of regions");
        }
        if routes.kind() != Kind::Map || !routes.members().all(|(_, route)| route.kind() == Kind::Map) {
            return Err("routes must map regions to maps");
        }
        if default_class.kind() != Kind::Text {
            return Err("default_class must be a text");
        }
        Ok(Residency { allowed, routes, default_class })
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let named = request.context().get("data_classes");
        if named.exists() && (!is_names(named) || named.len() == 0) {
            answer.deny("class_invalid").say("the data classes are not a list of names");
            return;
        }
        let classes = Classes(if named.exists() { named } else { self.default_class });
        if let Some(class) = classes.iter().find(|class| !self.allowed.get(class).exists()) {
            answer.deny("class_unknown").say("no rule for class ").say(class);
            return;
        }
        let Some(region) = request.resource().property("region").text() else {
            answer.deny("region_unknown").say("the resource does not say where it is");
            return;
        };
        let Some(forbids) = classes.iter().find(|class| !self.allows(class, region)) else {
            classes.say(answer.allow("in_region").say(region).say(" is allowed for "));
            return;
        };
        let Some(to) = self.reroute(request, classes) else {
            classes.say(answer.deny("no_region").say("no region with a route is allowed for "));
            return;
        };
        answer.transform("rerouted").say(region).say(" is not allowed for ").say(forbids).say(", ").say(to).say(" is");
        answer.obligation("residency", "route", |p| {
            p.set("region", to);
            p.set("target", self.routes.get(to));
        });
    }
}

impl Residency {
    fn allows(&self, class: &str, region: &str) -> bool {
        self.allowed.get(class).items().any(|r| r.is(region) || r.is("*"))
    }

    /// Where to go instead: home if it may be, else the first class's first region that may.
    fn reroute<'a>(&self, request: Request<'a>, classes: Classes<'a>) -> Option<&'a str> {
        let may = |region: &&str| self.routes.get(region).exists() && classes.iter().all(|class| self.allows(class, region));
        let home = request.subject().property("region").text().filter(may);
        let regions = self.allowed.get(classes.iter().next()?).items().filter_map(Value::text);
        home.or_else(|| regions.filter(|r| *r != "*").find(may))
    }
}

fn is_names(value: Value) -> bool {
    value.kind() == Kind::List && value.items().all(|item| item.kind() == Kind::Text)
}
