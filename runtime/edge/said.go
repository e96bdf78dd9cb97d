package edge

import (
	"encoding/hex"
	"reflect"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Bounds of the lists that a record repeats of a request.
const (
	maxHops       = 16
	maxApprovers  = 16
	maxSignals    = 32
	maxCategories = 16
)

// said reads what a request states of itself under the names that sdk/policy's
// README lists. What has another type than it should is left out. It is nil when
// the request states nothing.
func said(req *policy.Request) *audit.Said {
	if len(req.Context) == 0 && len(req.Signals) == 0 && len(req.Subject.Properties) == 0 && len(req.Resource.Properties) == 0 {
		return nil
	}
	c, subject, resource := stated(req.Context), stated(req.Subject.Properties), stated(req.Resource.Properties)
	s := &audit.Said{
		Agent: c.agent(), OnBehalfOf: c.entity("on_behalf_of"), Delegation: c.delegation(),
		Client: c.client(), Model: c.model(), Tool: c.tool(),
		UseCase: c.text("use_case_id"), RiskClass: c.text("risk_class"), Purpose: c.text("purpose"),
		DataOf:         c.texts("data_subject_categories"),
		Classification: resource.text("classification"), Region: resource.text("region"),
		Session: c.text("session"), Batch: c.text("batch_decision_id"), Idempotency: c.text("idempotency_key"),
		UseStarted: c.time("use_started_at"), Approval: c.approval(), Signals: signals(req.Signals),
		AuthMethod: subject.text("auth_method"), ACR: subject.text("acr"),
	}
	if reflect.ValueOf(s).Elem().IsZero() {
		return nil
	}
	return s
}

// stated are members that an asker wrote.
type stated map[string]any

func (m stated) text(name string) string {
	s, _ := m[name].(string)
	return short(s)
}

func (m stated) whole(name string) uint64 {
	n, _ := m[name].(int64)
	return uint64(max(n, 0))
}

// time is in nanoseconds since 1970, of a text as RFC 3339 has it; 0 for none.
func (m stated) time(name string) int64 {
	s, _ := m[name].(string)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 || t.Year() > 2200 {
		return 0
	}
	return t.UnixNano()
}

func (m stated) below(name string) stated {
	below, _ := m[name].(map[string]any)
	return below
}

// list calls take for each object of a list, up to most of them.
func (m stated) list(name string, most int, take func(stated)) {
	list, _ := m[name].([]any)
	for _, v := range list[:min(len(list), most)] {
		if member, ok := v.(map[string]any); ok {
			take(member)
		}
	}
}

func (m stated) texts(name string) (out []string) {
	list, _ := m[name].([]any)
	for _, v := range list[:min(len(list), maxCategories)] {
		if s, ok := v.(string); ok && s != "" {
			out = append(out, short(s))
		}
	}
	return out
}

// some returns nil for the zero value.
func some[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// An agent, a person, a model and a tool may be given by name alone.

func (m stated) agent() *audit.Agent {
	a := m.below("agent")
	return some(audit.Agent{ID: m.text("agent") + a.text("id"), Version: a.text("version"), Digest: a.text("digest")})
}

func (m stated) entity(name string) *audit.Entity {
	e := m.below(name)
	return some(audit.Entity{Type: e.text("type"), ID: m.text(name) + e.text("id")})
}

func (m stated) client() *audit.Client {
	c := m.below("client")
	return some(audit.Client{IP: c.text("ip"), App: c.text("app")})
}

func (m stated) model() *audit.Model {
	o := m.below("model")
	return some(audit.Model{
		Requested: m.text("model") + o.text("requested"), Served: o.text("served"), Provider: o.text("provider"), Version: o.text("version"), Region: o.text("region"),
	})
}

func (m stated) tool() *audit.Tool {
	t := m.below("tool")
	return some(audit.Tool{Server: t.text("server"), Name: m.text("tool") + t.text("name"), Definition: t.text("definition_digest")})
}

func (m stated) delegation() (hops []audit.Hop) {
	m.list("delegation_chain", maxHops, func(h stated) {
		hops = append(hops, audit.Hop{Agent: h.text("agent"), Scope: h.text("scope"), Depth: h.whole("depth")})
	})
	return hops
}

func (m stated) approval() *audit.Approval {
	a := m.below("approval")
	if len(a) == 0 {
		return nil
	}
	once, _ := a["single_use"].(bool)
	out := &audit.Approval{Request: a.text("request_id"), Required: a.whole("required_n"), Expires: a.time("expires_at"), SingleUse: once}
	a.list("approvers", maxApprovers, func(p stated) {
		out.Approvers = append(out.Approvers, audit.Approver{
			ID: p.text("id"), Method: p.text("method"), At: p.time("at"), Decision: p.text("decision"), Args: p.text("args_digest"),
		})
	})
	return out
}

func signals(list []policy.Signal) (out []audit.SignalRecord) {
	for _, s := range list[:min(len(list), maxSignals)] {
		out = append(out, audit.SignalRecord{Detector: short(s.Detector), Version: short(s.Version), Score: s.Score})
	}
	return out
}

// trace reads the W3C Trace Context of a request: traceparent, or trace_id and
// span_id by themselves. What is not one is left out.
func trace(context stated) (trace, span []byte) {
	traceID, _ := context["trace_id"].(string)
	spanID, _ := context["span_id"].(string)
	if parent, ok := context["traceparent"].(string); ok {
		parts := strings.Split(parent, "-")
		if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" {
			return nil, nil
		}
		traceID, spanID = parts[1], parts[2]
	}
	return identifier(traceID, 16), identifier(spanID, 8)
}

// identifier reads an identifier of so many bytes that are not all zero.
func identifier(s string, n int) []byte {
	if len(s) != 2*n || strings.Trim(s, "0") == "" {
		return nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
