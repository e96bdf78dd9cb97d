package guest_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/plaincbor"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// The oracle is examples/README.md once more, as plainly as it can be written:
// on the request's own values, with the packages time and regexp.

// rules are an example's parameters and data.
type rules struct {
	example string
	params  map[string]any
	data    map[string]any
	pattern *regexp.Regexp
}

func newRules(pkg *bundle.Package, params map[string]any) rules {
	r := rules{example: pkg.Name, params: pkg.Merged(params)}
	if len(pkg.Data) > 0 {
		v, err := policy.ParseValue(pkg.Data)
		if err != nil {
			panic(err) // it was built
		}
		r.data = v.(map[string]any)
	}
	if len(pkg.Patterns) > 0 {
		r.pattern = regexp.MustCompile(pkg.Patterns[0])
	}
	return r
}

// answer is a decision before it is bytes; a map's members are sorted, and "value"
// and the like left out when nil.
type answer struct {
	value       any
	code, text  string
	verdict     string
	obligations []any
	log         string
}

func (r rules) decide(req *policy.Request, now int64) said {
	a := map[string]func(*policy.Request, int64) answer{"tool-authz": r.toolAuthz, "spend-cap": r.spendCap, "residency": r.residency}[r.example](req, now)
	out := []byte{0xa2}
	if a.obligations != nil {
		out[0]++
	}
	if a.value != nil {
		out[0]++
		out = plaincbor.Append(plaincbor.Append(out, "value"), a.value)
	}
	out = append(plaincbor.Append(out, "reasons"), 0x81, 0xa2)
	out = plaincbor.Append(plaincbor.Append(plaincbor.Append(plaincbor.Append(out, "code"), a.code), "text"), a.text)
	out = plaincbor.Append(plaincbor.Append(out, "verdict"), a.verdict)
	if a.obligations != nil {
		out = plaincbor.Append(plaincbor.Append(out, "obligations"), a.obligations)
	}
	s := said{output: out}
	if a.log != "" {
		s.logs = []abi.Log{{Level: 1, Text: a.log}}
	}
	return s
}

// reasonOf is "verdict code" of an answer.
func reasonOf(t *testing.T, s said) string {
	t.Helper()
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Decode(s.output)
	if err != nil || len(d.Reasons) != 1 {
		t.Fatalf("%s: %v", s, err)
	}
	return fmt.Sprintf("%v %s", d.Verdict, d.Reasons[0].Code)
}

func denied(code, text string) answer { return answer{verdict: "deny", code: code, text: text} }

func (r rules) toolAuthz(req *policy.Request, _ int64) answer {
	subject, tool, most := req.Subject.ID, req.Resource.ID, r.params["max_delegation"].(int64)
	delegation, there := req.Context["delegation"]
	list, isList := delegation.([]any)
	if req.Resource.Type != "tool" {
		return denied("not_a_tool", "a "+req.Resource.Type+" is not a tool")
	}
	if !r.pattern.MatchString(tool) {
		return denied("tool_name_invalid", "the name of the tool is not valid")
	}
	if there && !isList {
		return denied("delegation_invalid", "the delegation is not a list of names")
	}
	if int64(len(list)) > most {
		return denied("delegation_too_deep", fmt.Sprintf("%d delegations, at most %d", len(list), most))
	}
	hit := r.firstHit(subject, tool)
	if hit == "" {
		return denied("tool_not_granted", subject+" may not call "+tool)
	}
	for _, item := range list {
		name, isText := item.(string)
		if !isText {
			return denied("delegation_invalid", "the delegation is not a list of names")
		}
		if r.firstHit(name, tool) == "" {
			return denied("delegator_not_granted", name+", who delegated, may not call "+tool)
		}
	}
	a := answer{verdict: "allow", code: "granted", text: subject + " may call " + tool}
	if hit == "*" {
		a.log = subject + " used a role that may call everything"
	}
	return a
}

// firstHit is the entry that grants subject the tool, "" when none does.
func (r rules) firstHit(subject, tool string) string {
	roles, _ := r.data["users"].(map[string]any)[subject].([]any)
	for _, role := range roles {
		tools, _ := r.data["roles"].(map[string]any)[role.(string)].([]any)
		for _, t := range tools {
			if t == tool || t == "*" {
				return t.(string)
			}
		}
	}
	return ""
}

func whole(v any) (int64, bool) {
	n, ok := v.(int64)
	return n, ok && n >= 0
}

// oracleTime reads a time by the package time, and the shape, which is narrower, by
// a regular expression.
func oracleTime(v any) (time.Time, bool) {
	text, _ := v.(string)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`).MatchString(text) {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
	return at, err == nil && at.Year() >= 1970 && at.Year() <= 2200
}

func asciiUpper(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

func (r rules) spendCap(req *policy.Request, now int64) answer {
	limit, over := r.params["cap"].(int64), r.params["approval_over"].(int64)
	currency, window := r.params["currency"].(string), time.Duration(r.params["window_hours"].(int64))*time.Hour
	arguments, _ := req.Context["arguments"].(map[string]any)
	if !slices.Contains(r.params["tools"].([]any), any(req.Resource.ID)) {
		return answer{verdict: "allow", code: "not_a_payment", text: req.Resource.ID + " moves no money"}
	}
	amount, ok := whole(arguments["amount"])
	if !ok {
		return denied("amount_invalid", "the amount is not a whole number from 0")
	}
	if c, ok := arguments["currency"].(string); !ok || asciiUpper(c) != asciiUpper(currency) {
		return denied("currency_unknown", "the cap is in "+currency)
	}
	value, there := req.Context["spent"]
	spent, ok := whole(value)
	if there && !ok {
		return denied("spent_invalid", "what was spent is not a whole number from 0")
	}
	var ends time.Time
	value, started := req.Context["window_start"]
	if started {
		start, ok := oracleTime(value)
		if !ok {
			return denied("window_invalid", "the start of the window is not a time")
		}
		if start.After(time.Unix(0, now)) {
			return denied("window_invalid", "the window begins in the future")
		}
		ends = start.Add(window)
		if !ends.After(time.Unix(0, now)) {
			spent, ends = 0, time.Unix(0, now).Add(window)
		}
	}
	switch {
	case amount > limit-spent && started:
		a := denied("over_cap", fmt.Sprintf("%d on top of %d is more than %d %s", amount, spent, limit, currency))
		a.verdict = "throttle"
		left := ends.Sub(time.Unix(0, now))
		seconds := int64(left / time.Second)
		if left%time.Second != 0 {
			seconds++
		}
		a.obligations = []any{map[string]any{"type": "retry", "properties": map[string]any{"after_seconds": seconds}}}
		return a
	case amount > limit-spent:
		return denied("over_cap", fmt.Sprintf("%d on top of %d is more than %d %s", amount, spent, limit, currency))
	case amount > over:
		return answer{verdict: "require_approval", code: "needs_approval", text: fmt.Sprintf("%d is more than %d %s", amount, over, currency)}
	}
	return answer{verdict: "allow", code: "within_cap", text: fmt.Sprintf("%d on top of %d is within %d %s", amount, spent, limit, currency),
		value: map[string]any{"remaining": limit - spent - amount}}
}

func (r rules) residency(req *policy.Request, _ int64) answer {
	value, there := req.Context["data_classes"]
	if !there {
		value = []any{r.params["default_class"]}
	}
	list, _ := value.([]any)
	var classes []string
	for _, item := range list {
		class, ok := item.(string)
		if !ok {
			return denied("class_invalid", "the data classes are not a list of names")
		}
		classes = append(classes, class)
	}
	if len(classes) == 0 {
		return denied("class_invalid", "the data classes are not a list of names")
	}
	for _, class := range classes {
		if r.params["allowed"].(map[string]any)[class] == nil {
			return denied("class_unknown", "no rule for class "+class)
		}
	}
	region, ok := req.Resource.Properties["region"].(string)
	if !ok {
		return denied("region_unknown", "the resource does not say where it is")
	}
	forbids := slices.IndexFunc(classes, func(class string) bool { return !r.allows(class, region) })
	if forbids < 0 {
		return answer{verdict: "allow", code: "in_region", text: region + " is allowed for " + strings.Join(classes, ", ")}
	}
	candidates := []any{req.Subject.Properties["region"]}
	for _, to := range r.params["allowed"].(map[string]any)[classes[0]].([]any) {
		if to != "*" {
			candidates = append(candidates, to)
		}
	}
	for _, candidate := range candidates {
		to, ok := candidate.(string)
		route, routed := r.params["routes"].(map[string]any)[to]
		if ok && routed && !slices.ContainsFunc(classes, func(class string) bool { return !r.allows(class, to) }) {
			return answer{verdict: "transform", code: "rerouted", text: region + " is not allowed for " + classes[forbids] + ", " + to + " is",
				obligations: []any{map[string]any{"id": "residency", "type": "route", "properties": map[string]any{"region": to, "target": route}}}}
		}
	}
	return denied("no_region", "no region with a route is allowed for "+strings.Join(classes, ", "))
}

func (r rules) allows(class, region string) bool {
	list := r.params["allowed"].(map[string]any)[class].([]any)
	return slices.Contains(list, any(region)) || slices.Contains(list, any("*"))
}
