package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// shown is a record as `ledger prove` and `ledger query` show it: in full but for
// parts, of which prove shows the request.
type shown struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
	Leaf string `json:"leaf"`
	Time string `json:"time"`
	Kind string `json:"kind"`

	Point       string              `json:"point,omitempty"`
	RequestID   string              `json:"request_id,omitempty"`
	Subject     string              `json:"subject,omitempty"` // type:id
	Action      string              `json:"action,omitempty"`
	Resource    string              `json:"resource,omitempty"` // type:id
	Verdict     string              `json:"verdict,omitempty"`
	Reasons     []policy.Reason     `json:"reasons,omitempty"`
	Obligations []policy.Obligation `json:"obligations,omitempty"`
	Epoch       uint64              `json:"epoch,omitempty"`
	Failure     string              `json:"failure,omitempty"`
	Instead     uint64              `json:"instead,omitempty"` // seq of the decision in whose place this was answered
	Stale       string              `json:"stale,omitempty"`
	Killed      string              `json:"killed,omitempty"` // digest of the kill
	Replay      string              `json:"replay,omitempty"`
	Request     json.RawMessage     `json:"request,omitempty"`

	// Text says what a record of another kind holds.
	Text string `json:"text,omitempty"`
}

func entity(e audit.Entity) string {
	if e == (audit.Entity{}) {
		return ""
	}
	return e.Type + ":" + e.ID
}

func show(node, boot string, r *audit.Record, leaf []byte) *shown {
	s := &shown{Node: node, Boot: boot, Seq: r.Seq, Leaf: hex.EncodeToString(leaf), Time: stamp(r.Time), Kind: r.Kind.String()}
	switch {
	case r.Decision != nil:
		s.decision(r.Decision)
	case r.Activation != nil:
		s.Text = fmt.Sprintf("release %s of epoch %d in force, %d modules", r.Activation.Release, r.Activation.Epoch, len(r.Activation.Modules))
	case r.Boot != nil:
		s.Text = "the first boot"
		if r.Boot.Previous != "" {
			s.Text = "boot after " + r.Boot.Previous
		}
	case r.Admin != nil:
		event := r.Admin.Event
		if region, ok := r.Admin.Detail["region"].(string); ok {
			event += " " + region
		}
		s.Text = strings.TrimRight(event+": "+r.Admin.Text, ": ")
	case r.Result != nil:
		s.Text = strings.TrimRight(fmt.Sprintf("result of record %d: %s", r.Result.Seq, r.Result.Finish), ": ")
	}
	return s
}

func (s *shown) decision(d *audit.DecisionRecord) {
	s.Point, s.RequestID, s.Action, s.Verdict, s.Epoch = d.Point, d.RequestID, d.Action, d.Verdict.String(), d.Epoch
	s.Subject, s.Resource, s.Obligations, s.Replay = entity(d.Subject), entity(d.Resource), d.Obligations, d.Replay.String()
	for _, r := range d.Reasons {
		s.Reasons = append(s.Reasons, policy.Reason{Code: r.Code, Text: r.Text})
	}
	if d.Failure != nil {
		s.Failure = d.Failure.Cause
	}
	s.Instead = d.Instead
	if d.Stale != nil {
		s.Stale = d.Stale.State
	}
	if d.Kill != nil {
		s.Killed = d.Kill.String()
	}
	if d.Request != nil && d.Request.Missing() {
		s.Replay = "erased"
	}
}

func (s *shown) codes() string {
	codes := make([]string, len(s.Reasons))
	for i, r := range s.Reasons {
		codes[i] = r.Code
	}
	return strings.Join(codes, ",")
}

// print shows what the record says, line by line; texts are quoted, because
// others wrote them.
func (s *shown) print(p *printer) {
	p.line("  %s  %s", s.Time, s.Kind)
	if s.Text != "" {
		p.line("  %q", s.Text)
	}
	if s.Verdict == "" {
		return
	}
	verdict := p.green(s.Verdict)
	if s.Verdict == policy.Deny.String() {
		verdict = p.red(s.Verdict)
	}
	p.line("  %s at %q: subject %q, action %q, resource %q", verdict, s.Point, s.Subject, s.Action, s.Resource)
	if s.Instead != 0 {
		p.line("  answered in the place of record %d", s.Instead)
	}
	if s.Replay == "erased" {
		p.line("  what was asked is not there")
	}
	for _, r := range s.Reasons {
		p.line("  reason %q %q", r.Code, r.Text)
	}
}
