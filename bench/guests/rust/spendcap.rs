//! A spend cap: the tools of a list may spend up to a cap, more needs approval.
#![no_std]
use holdfast::{Decision, Kind, Policy, Value};

struct SpendCap {
    tools: Value<'static>,
    cap: i64,
}

holdfast::export!(SpendCap, SpendCap { tools: Value::ABSENT, cap: 0 });

impl Policy for SpendCap {
    fn configure(&mut self, params: Value, _: Value) -> bool {
        self.tools = params.get("tools").keep();
        self.cap = params.get("cap").int().unwrap_or(-1);
        self.tools.kind() == Kind::List && self.cap >= 0
    }

    fn decide(&mut self, request: Value, d: &mut Decision) {
        let tool = request.get("resource").get("id").text();
        let context = request.get("context");
        let spent = context.get("spent");
        if !self.tools.items().any(|t| t.kind() == Kind::Text && t.text() == tool) {
            d.text.add(tool);
            return say(d, "deny", "tool_denied", " is not an allowed tool");
        }
        let Some(amount) = context.get("arguments").get("amount").int().filter(|n| *n >= 0) else {
            return say(d, "deny", "amount_invalid", "the amount is not a whole number from 0");
        };
        let spent = if spent.kind() == Kind::Absent { Some(0) } else { spent.int() };
        let Some(spent) = spent.filter(|n| *n >= 0) else {
            return say(d, "deny", "spent_invalid", "what was spent is not a whole number from 0");
        };

        d.text.add_int(amount);
        d.text.add(b" on top of ");
        d.text.add_int(spent);
        if amount <= self.cap - spent {
            say(d, "allow", "within_cap", " is within ");
        } else {
            say(d, "require_approval", "over_cap", " is more than ");
        }
        d.text.add_int(self.cap);
    }
}

fn say(d: &mut Decision, verdict: &'static str, code: &'static str, text: &str) {
    (d.verdict, d.code) = (verdict, code);
    d.text.add(text.as_bytes());
}
