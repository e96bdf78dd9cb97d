//! The tools of a list may spend up to a cap in a window of time; larger payments need approval.
#![no_std]
mod holdfast;
use holdfast::{Decision, Kind, Policy, Request, Value, map};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

struct SpendCap {
    cap: i64,
    approval_over: i64,
    currency: &'static str,
    tools: Value<'static>,
    window: i64,
}

holdfast::export!(SpendCap);

impl Policy for SpendCap {
    fn configure(params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
        let tools = params.get("tools");
        if tools.kind() != Kind::List || !tools.items().all(|t| t.kind() == Kind::Text) {
            return Err("tools must be a list of names");
        }
        let Some(hours @ 1..=8760) = params.get("window_hours").int() else {
            return Err("window_hours must be a whole number from 1 to 8760");
        };
        Ok(SpendCap {
            cap: whole(params.get("cap")).ok_or("cap must be a whole number from 0")?,
            approval_over: whole(params.get("approval_over")).ok_or("approval_over must be a whole number from 0")?,
            currency: params.get("currency").text().ok_or("currency must be a text")?,
            tools,
            window: hours * HOUR,
        })
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let (tool, context) = (request.resource().id(), request.context());
        if !self.tools.items().any(|t| t.is(tool)) {
            answer.allow("not_a_payment").say(tool).say(" moves no money");
            return;
        }
        let arguments = context.get("arguments");
        let Some(amount) = whole(arguments.get("amount")) else {
            answer.deny("amount_invalid").say("the amount is not a whole number from 0");
            return;
        };
        if !arguments.get("currency").text().is_some_and(|c| c.eq_ignore_ascii_case(self.currency)) {
            answer.deny("currency_unknown").say("the cap is in ").say(self.currency);
            return;
        }
        let spent = context.get("spent");
        let Some(mut spent) = (if spent.exists() { whole(spent) } else { Some(0) }) else {
            answer.deny("spent_invalid").say("what was spent is not a whole number from 0");
            return;
        };
        let window_start = context.get("window_start");
        let mut end = None; // of the window, when there is one
        if window_start.exists() {
            let Some(start) = window_start.time() else {
                answer.deny("window_invalid").say("the start of the window is not a time");
                return;
            };
            let now = holdfast::now();
            if start > now {
                answer.deny("window_invalid").say("the window begins in the future");
                return;
            }
            end = Some(start + self.window - now);
            if now - start >= self.window {
                (spent, end) = (0, Some(self.window));
            }
        }
        self.judge(amount, spent, end, answer);
    }
}

impl SpendCap {
    /// Decides on an amount; `left` are the nanoseconds until the window ends.
    fn judge(&self, amount: i64, spent: i64, left: Option<i64>, answer: &mut Decision) {
        let remaining = self.cap - spent;
        if amount > remaining {
            let reason = if left.is_some() { answer.throttle("over_cap") } else { answer.deny("over_cap") };
            reason.say(amount).say(" on top of ").say(spent).say(" is more than ").say(self.cap).say(" ").say(self.currency);
            if let Some(left) = left {
                answer.obligation("", "retry", |p| p.set("after_seconds", (left + SECOND - 1) / SECOND));
            }
        } else if amount > self.approval_over {
            answer.require_approval("needs_approval").say(amount).say(" is more than ").say(self.approval_over).say(" ").say(self.currency);
        } else {
            answer.allow("within_cap").say(amount).say(" on top of ").say(spent).say(" is within ").say(self.cap).say(" ").say(self.currency);
            answer.value(map(|m| m.set("remaining", remaining - amount)));
        }
    }
}

fn whole(value: Value) -> Option<i64> {
    value.int().filter(|n| *n >= 0)
}
