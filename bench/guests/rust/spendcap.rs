//! A spend cap: the tools of a list may spend up to a cap, more needs approval.
#![no_std]
mod holdfast;
use holdfast::{Decision, Kind, Policy, Request, Value};

struct SpendCap {
    tools: Value<'static>,
    cap: i64,
}

holdfast::export!(SpendCap);

impl Policy for SpendCap {
    fn configure(params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
        let (tools, cap) = (params.get("tools"), whole(params.get("cap")));
        if tools.kind() != Kind::List {
            return Err("tools must be a list");
        }
        Ok(SpendCap { tools, cap: cap.ok_or("cap must be a whole number from 0")? })
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let (tool, context) = (request.resource().id(), request.context());
        if !self.tools.items().any(|t| t.is(tool)) {
            answer.deny("tool_denied").say(tool).say(" is not an allowed tool");
            return;
        }
        let Some(amount) = whole(context.get("arguments").get("amount")) else {
            answer.deny("amount_invalid").say("the amount is not a whole number from 0");
            return;
        };
        let spent = context.get("spent");
        let Some(spent) = (if spent.exists() { whole(spent) } else { Some(0) }) else {
            answer.deny("spent_invalid").say("what was spent is not a whole number from 0");
            return;
        };
        let within = amount <= self.cap - spent;
        let reason = if within { answer.allow("within_cap") } else { answer.require_approval("over_cap") };
        reason.say(amount).say(" on top of ").say(spent).say(if within { " is within " } else { " is more than " }).say(self.cap);
    }
}

fn whole(value: Value) -> Option<i64> {
    value.int().filter(|n| *n >= 0)
}
