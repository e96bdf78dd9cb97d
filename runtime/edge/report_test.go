package edge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// result is of a, with texts that repeat a secret.
func result(a policy.Answer) *policy.Result {
	return &policy.Result{
		Node: a.Node, Boot: a.Boot, Seq: a.Seq, Usage: &policy.Usage{InputTokens: 12, OutputTokens: 3, CostMicros: 4, Currency: "EUR"},
		FinishReason: "stop", Error: "no such card: " + canary, EndedAt: time.Unix(1, 2), OutputDigest: "sha256:" + strings.Repeat("0f", 32), Served: "acme/m-1:2",
		Obligations: []policy.ObligationResult{{ID: "o-" + canary, Type: "notify", Status: "failed", Error: "could not reach " + canary}},
	}
}

func (n *node) report(r *policy.Result) (*audit.ResultRecord, policy.Reported) {
	n.w.t.Helper()
	out, err := n.Report(context.Background(), r)
	n.w.must(err)
	records := n.records()
	last := records[len(records)-1]
	if last.Kind != audit.KindResult || last.Seq != out.Seq || out.Boot != n.Status().Boot || !out.Recorded || out.Durability != policy.Synced || len(out.Leaf) != 64 {
		n.w.t.Errorf("%+v, %+v", out, last)
	}
	return last.Result, out
}

func TestReport(t *testing.T) {
	w, n := started(t)
	a := n.ask()
	got, reported := n.report(result(a))
	if got.Boot != "" || got.Seq != a.Seq || *got.Usage != (audit.Usage{Input: 12, Output: 3, Cost: 4, Currency: "EUR"}) || got.Finish != "stop" ||
		got.Error != "no such card: "+canary || got.Ended != 1e9+2 || got.Output == nil || got.Served != "acme/m-1:2" ||
		len(got.Obligations) != 1 || got.Obligations[0] != (audit.ObligationResult{ID: "o-" + canary, Type: "notify", Status: "failed", Error: "could not reach " + canary}) {
		t.Errorf("%+v", got)
	}
	long := result(a)
	long.Error = strings.Repeat("x", 10_000)
	if got, _ := n.report(long); len(got.Error) > 300 {
		t.Errorf("an error of %d bytes", len(got.Error))
	}
	refused := func(what string, change func(*policy.Result)) {
		t.Helper()
		r := result(a)
		change(r)
		if _, err := n.Report(context.Background(), r); !errors.Is(err, policy.ErrUnknownRecord) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("another node", func(r *policy.Result) { r.Node = "n2" })
	refused("no boot", func(r *policy.Result) { r.Boot = "../x" })
	refused("a boot to come", func(r *policy.Result) { r.Boot = "00000009-0123456789abcdef" })
	refused("another first boot", func(r *policy.Result) { r.Boot = "00000001-0123456789abcdef" })
	refused("not yet", func(r *policy.Result) { r.Seq = a.Seq + 10 })
	refused("the boot's record", func(r *policy.Result) { r.Seq = 1 })
	refused("a result", func(r *policy.Result) { r.Seq = reported.Seq })
	n.stop()

	// After a start it is a decision of another boot; there its end is known.
	n = w.start(nil)
	n.waitEpoch(1)
	if got, _ := n.report(result(a)); got.Boot != a.Boot || got.Seq != a.Seq {
		t.Errorf("%+v", got)
	}
	refused("beyond the end of an earlier boot", func(r *policy.Result) { r.Seq = a.Seq + 1000 })
}

// Of a decision whose point masks, a result keeps no free text: what it repeats of
// the request is not known any more.
func TestReportIsMasked(t *testing.T) {
	w, n, _ := masking(t, bundle.Mask{Path: "/subject/id", Action: bundle.MaskDrop})
	a := n.askAt(policy.PointCustom, `{"document":1}`)
	r := result(a)
	got, _ := n.report(r)
	if strings.Contains(fmt.Sprintf("%+v", got), canary) || got.Finish != "stop" || got.Served != "acme/m-1:2" || got.Obligations[0].Type != "notify" || got.Obligations[0].Status != "failed" {
		t.Errorf("%+v", got)
	}
	r.FinishReason, r.Served, r.Obligations[0].Type = "because of "+canary, canary, canary
	if got, _ := n.report(r); strings.Contains(fmt.Sprintf("%+v", got), canary) {
		t.Errorf("%+v", got)
	}
	other := n.askAt(policy.PointAgentStop, `{"document":1}`) // a point without masks
	if got, _ := n.report(result(other)); !strings.Contains(got.Error, canary) {
		t.Errorf("%+v", got)
	}
	n.stop()
	n = w.start(nil)
	n.waitEpoch(1)
	if got, _ := n.report(result(other)); strings.Contains(got.Error, canary) {
		t.Errorf("of an earlier boot nobody knows the point: %+v", got)
	}
}
