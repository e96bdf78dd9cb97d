//! Who may call which tool, through how many delegations.
#![no_std]
mod holdfast;
use holdfast::{Decision, Kind, Level, Policy, Request, Text, Value};

struct ToolAuthz {
    roles: Value<'static>,
    users: Value<'static>,
    max_delegation: usize,
}

holdfast::export!(ToolAuthz);

impl Policy for ToolAuthz {
    fn configure(params: Value<'static>, data: Value<'static>) -> Result<Self, &'static str> {
        let (roles, users) = (data.get("roles"), data.get("users"));
        if !maps_to_texts(roles) || !maps_to_texts(users) {
            return Err("data: roles and users must map names to lists of names");
        }
        match params.get("max_delegation").int() {
            Some(max @ 0..) => Ok(ToolAuthz { roles, users, max_delegation: max.min(i32::MAX as i64) as usize }),
            _ => Err("max_delegation must be a whole number from 0"),
        }
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let (subject, resource) = (request.subject().id(), request.resource());
        let tool = resource.id();
        if resource.type_name() != "tool" {
            answer.deny("not_a_tool").say("a ").say(resource.type_name()).say(" is not a tool");
            return;
        }
        if !holdfast::matches(0, tool) {
            answer.deny("tool_name_invalid").say("the name of the tool is not valid");
            return;
        }
        let delegation = request.context().get("delegation");
        if delegation.exists() && delegation.kind() != Kind::List {
            return not_names(answer);
        }
        if delegation.len() > self.max_delegation {
            answer.deny("delegation_too_deep").say(delegation.len()).say(" delegations, at most ").say(self.max_delegation);
            return;
        }
        let Some(hit) = self.grant(subject, tool) else {
            answer.deny("tool_not_granted").say(subject).say(" may not call ").say(tool);
            return;
        };
        for item in delegation.items() {
            let Some(name) = item.text() else { return not_names(answer) };
            if self.grant(name, tool).is_none() {
                answer.deny("delegator_not_granted").say(name).say(", who delegated, may not call ").say(tool);
                return;
            }
        }
        if hit.is("*") {
            holdfast::log(Level::Info, Text::new().say(subject).say(" used a role that may call everything").as_str());
        }
        answer.allow("granted").say(subject).say(" may call ").say(tool);
    }
}

impl ToolAuthz {
    /// What grants the tool: its name in one of the subject's roles, or `*`.
    fn grant(&self, subject: &str, tool: &str) -> Option<Value<'static>> {
        let roles = self.users.get(subject).items();
        roles.flat_map(|role| self.roles.get(role.text().unwrap_or_default()).items()).find(|t| t.is(tool) || t.is("*"))
    }
}

fn not_names(answer: &mut Decision) {
    answer.deny("delegation_invalid").say("the delegation is not a list of names");
}

fn maps_to_texts(value: Value) -> bool {
    value.kind() == Kind::Map && value.members().all(|(_, list)| list.kind() == Kind::List && list.items().all(|item| item.kind() == Kind::Text))
}
