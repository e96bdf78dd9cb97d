// Tool-authz decides who may call which tool, through how many delegations.
package main

import (
	"errors"
	"strings"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Configure: configure, Decide: decide}) }

func main() {}

// Set once, by configure, before the first decision.
var (
	roles         map[string][]string // the tools of a role
	users         map[string][]string // the roles of a subject
	maxDelegation int64
)

const (
	toolName  = 0 // the pattern of holdfast.yaml
	everyTool = "*"
)

func configure(params, data guest.Value) error {
	var ok [3]bool
	maxDelegation, ok[0] = params.Get("max_delegation").Whole()
	roles, ok[1] = lists(data.Get("roles"))
	users, ok[2] = lists(data.Get("users"))
	if !ok[0] || !ok[1] || !ok[2] {
		return errors.New("want max_delegation as a whole number, roles and users in the data as maps of lists of texts")
	}
	return nil
}

// lists copies a map of lists of texts.
func lists(v guest.Value) (map[string][]string, bool) {
	if v.Kind() != guest.Map {
		return nil, false
	}
	out := make(map[string][]string, v.Len())
	for name, list := range v.Members() {
		texts, ok := list.CopyTexts()
		if !ok {
			return nil, false
		}
		out[strings.Clone(name)] = texts
	}
	return out, true
}

func decide(r guest.Request) guest.Decision {
	subject, tool, delegation := r.Subject().ID(), r.Resource().ID(), r.Context().Get("delegation")
	switch kind := r.Resource().Type(); {
	case kind != "tool":
		return guest.Denied("not_a_tool", "a "+kind+" is not a tool")
	case !guest.Match(toolName, tool):
		return guest.Denied("tool_name_invalid", "the name of the tool is not valid")
	case delegation.Exists() && delegation.Kind() != guest.List:
		return guest.Denied("delegation_invalid", "the delegation is not a list of names")
	case int64(delegation.Len()) > maxDelegation:
		return guest.Denied("delegation_too_deep", guest.Decimal(int64(delegation.Len()))+" delegations, at most "+guest.Decimal(maxDelegation))
	}
	granted, everything := grant(subject, tool)
	if !granted {
		return guest.Denied("tool_not_granted", subject+" may not call "+tool)
	}
	for _, item := range delegation.Items() {
		if item.Kind() != guest.String {
			return guest.Denied("delegation_invalid", "the delegation is not a list of names")
		}
		if granted, _ := grant(item.Text(), tool); !granted {
			return guest.Denied("delegator_not_granted", item.Text()+", who delegated, may not call "+tool)
		}
	}
	if everything {
		guest.Log(guest.LevelInfo, subject+" used a role that may call everything")
	}
	return guest.Decision{Verdict: guest.Allow, Reasons: []guest.Reason{{Code: "granted", Text: subject + " may call " + tool}}}
}

// grant reports whether one of the subject's roles lists the tool, and whether
// the first that does lists every tool.
func grant(subject, tool string) (granted, everything bool) {
	for _, role := range users[subject] {
		for _, t := range roles[role] {
			if t == tool || t == everyTool {
				return true, t == everyTool
			}
		}
	}
	return false, false
}
