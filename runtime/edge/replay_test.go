package edge_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/replay"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// replayedPolicy answers with all that a record has room for: its clock, a value,
// an obligation that an asker may not know, reasons, what the node says of itself.
const replayedPolicy = `package p

decision := {"verdict": verdict, "reasons": reasons, "obligations": obligations, "value": value}

default verdict := "deny"
verdict := "allow" if input.context.amount <= data.params.limit

reasons contains {"code": "over_limit", "text": sprintf("%v is over %v", [input.context.amount, data.params.limit])} if input.context.amount > data.params.limit
reasons contains {"code": "told", "text": input.context.holdfast.staleness}

obligations := [{"type": "notify", "properties": {"who": "desk", "n": input.context.amount}}] if input.context.amount == 1
obligations := [] if input.context.amount != 1

value := {"now": time.now_ns(), "amount": input.context.amount}

doc := {"sum": input.a + input.b}
`

func (w *world) replayed(limit int64) bundle.PackageRef {
	w.t.Helper()
	built, err := rego.Compile(context.Background(), fstest.MapFS{"p.rego": {Data: []byte(replayedPolicy)}}, rego.Options{Entrypoints: []string{"p/decision", "p/doc"}})
	w.must(err)
	ref := w.publish(&bundle.Package{
		Manifest: bundle.Manifest{Name: "p", ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "p/decision", Params: map[string]any{"limit": int64(1)}}, Module: built.Wasm,
		Vectors: []bundle.Vector{{Name: "no", Point: policy.PointCustom, Request: []byte(replayedRequest("5")), Expect: bundle.Expect{Verdict: policy.Deny, Codes: []string{"over_limit"}}}},
	})
	ref.Params = map[string]any{"limit": limit}
	return ref
}

func replayedRequest(amount string) string {
	return `{"subject":{"type":"agent","id":"a7"},"action":{"name":"x"},"resource":{"type":"tool","id":"pay"},"context":{"amount":` + amount + `}}`
}

// silent is a region that never takes a record.
type silent struct{}

func (silent) Count() int { return 1 }
func (silent) Await(ctx context.Context, _ string, _ uint64, _ policy.Durability) error {
	<-ctx.Done()
	return ctx.Err()
}
func (silent) Met(string, uint64) policy.Durability { return policy.Synced }

// story has a node decide in every way of which there is a record.
func (w *world) story() *node {
	unruly := w.publish(w.unruly())
	release := func(epoch uint64, limit int64) *bundle.Release {
		r := w.release(epoch, w.replayed(limit))
		for mode, name := range map[int64]string{1: "loops", 5: "traps"} {
			ref := unruly
			ref.Params = map[string]any{"mode": mode}
			r.Points = append(r.Points, bundle.Point{Name: name, Durability: policy.Written, Packages: []bundle.PackageRef{r.Points[0].Packages[0], ref},
				OnError: policy.FailEscalate, OnFuel: policy.FailAllowFlagged, OnStale: policy.FailEscalate, LeaseSeconds: 3600})
		}
		far := r.Points[0]
		far.Name, far.Durability, far.OnLogFailure = "far", policy.Region, policy.FailEscalate
		hides := r.Points[0]
		hides.Name, hides.Masks = "hides", []bundle.Mask{{Path: "/context/secret", Action: bundle.MaskDrop}}
		r.Points = append(r.Points, far, hides)
		return r
	}
	n := w.start(func(c *edge.Config) { c.Regions, c.DurableWithin = silent{}, time.Millisecond })
	n.ask() // nothing is in force yet
	w.put(release(1, 5))
	n.waitEpoch(1)
	ask := func() {
		for _, amount := range []string{"1", "5.0", "6", "7", "1e300", `"x"`} {
			for _, point := range []string{policy.PointCustom, "loops", "traps", "far", "hides"} {
				n.askAt(point, replayedRequest(amount))
			}
		}
		for _, path := range [][]string{{"p", "doc"}, {"p", "doc", "sum"}, {"p", "decision"}, {"q"}} {
			for _, input := range []string{`{"a":1,"b":2}`, `{"a":1}`} {
				_, _, err := n.Data(context.Background(), path, []byte(input))
				if none := (*policy.NoDocumentError)(nil); err != nil && !errors.As(err, &none) {
					w.t.Fatal(err)
				}
			}
		}
		_, _, _ = n.Data(context.Background(), []string{"p", "doc"}, nil)
		n.askAt(policy.PointCustom, `{"bare":true,"resource":{"type":"data","id":"p/doc"},"document":{"a":1}}`) // not by the data API
	}
	ask()
	w.advance(90 * time.Second)
	ask()
	w.advance(2 * time.Hour)
	ask()
	n.Deliver(w.beat("eu"))
	w.put(release(2, 6))
	n.waitEpoch(2)
	ask()
	n.askAt("hides", strings.Replace(replayedRequest("5"), `"amount"`, `"secret":"s","amount"`, 1))
	env, _ := w.killOf("subject:agent:a7")
	n.Deliver(env)
	n.askAt(policy.PointCustom, replayedRequest("1"))
	n.admin("none") // what came before is durable
	return n
}

func (w *world) replay(records []*audit.Record, change func(*replay.Config)) (*replay.Report, []*replay.Difference) {
	w.t.Helper()
	ctx := context.Background()
	e, err := engine.New(ctx, engine.Config{Cache: edge.CodeDir(w.dir)})
	w.must(err)
	defer e.Close(ctx)
	found, err := replay.FindPackages(w.folder)
	w.must(err)
	var different []*replay.Difference
	cfg := replay.Config{Engine: e, Packages: found, Different: func(d *replay.Difference) { different = append(different, d) }}
	if change != nil {
		change(&cfg)
	}
	r, err := replay.New(ctx, cfg)
	w.must(err)
	for part := range slices.Chunk(records, 7) {
		w.must(r.Records(ctx, "n1", "b", part))
	}
	report, err := r.Close(ctx)
	w.must(err)
	if report.Different != uint64(len(different)) {
		w.t.Errorf("%d differ, %d were told", report.Different, len(different))
	}
	return report, different
}

func TestReplay(t *testing.T) {
	w := newWorld(t)
	n := w.story()
	for name, f := range map[string]func(*testing.T, *world, *node){
		"again": replayAgain, "changes": replaySeesChanges, "candidate": replayCandidate, "without packages": replayWithoutPackages,
	} {
		t.Run(name, func(t *testing.T) { f(t, w, n) })
	}
}

// Everything that a node decided gives the same bytes again.
func replayAgain(t *testing.T, w *world, n *node) {
	records := n.records()
	report, different := w.replay(records, nil)
	for _, d := range different {
		t.Errorf("%+v", d)
	}
	if !report.Equal() || report.Judged[replay.JudgedKill] != 1 || report.Judged[replay.JudgedNotReady] != 1 ||
		report.Judged[replay.JudgedInstead] == 0 || report.Masked != 1 || report.Exact != report.Decisions-3-report.Judged[replay.JudgedInstead] || report.Exact < 90 {
		t.Fatalf("%+v", report)
	}
	seen := map[string]bool{}
	for _, r := range records {
		if d := r.Decision; d != nil {
			seen[d.Verdict.String()], seen["value"], seen["aging"] = true, seen["value"] || d.Value != nil, seen["aging"] || d.Stale != nil
			if d.Failure != nil {
				seen[d.Failure.Cause] = true
			}
			for _, reason := range d.Reasons {
				seen[reason.Code] = true
			}
		}
	}
	for _, want := range []string{"allow", "deny", "require_approval", "value", "aging", "stale", "error", "fuel", "over_limit", "told", "unknown_path", "obligation_unsupported"} {
		if !seen[want] {
			t.Errorf("the story has no %s", want)
		}
	}
}

// replaySeesChanges changes each member of a decision that the policies give.
func replaySeesChanges(t *testing.T, w *world, n *node) {
	for name, change := range map[string]func(*audit.DecisionRecord){
		"verdict":     func(d *audit.DecisionRecord) { d.Verdict = policy.Throttle },
		"reasons":     func(d *audit.DecisionRecord) { d.Reasons = append(d.Reasons, audit.Reason{Code: "more"}) },
		"obligations": func(d *audit.DecisionRecord) { d.Obligations = []policy.Obligation{{Type: "other"}} },
		"value":       func(d *audit.DecisionRecord) { d.Value = audit.NewPart(nil, []byte{0x01}) },
		"runs":        func(d *audit.DecisionRecord) { d.Runs[0].Fuel++ },
		"epoch":       func(d *audit.DecisionRecord) { d.Epoch++ },
		"failure":     func(d *audit.DecisionRecord) { d.Failure = &audit.Failure{Cause: "error"} },
		"logs":        func(d *audit.DecisionRecord) { d.Logs = audit.NewPart(nil, []byte{0x80}) },
	} {
		records := n.records()
		i := slices.IndexFunc(records, func(r *audit.Record) bool {
			return r.Decision != nil && r.Decision.Verdict == policy.Allow && len(r.Decision.Runs) == 1
		})
		change(records[i].Decision)
		report, different := w.replay(records, nil)
		if report.Equal() || len(different) != 1 || different[0].Seq != records[i].Seq || !slices.Equal(different[0].What, []string{name}) {
			t.Errorf("%s: %+v %+v", name, report, different)
		}
	}
	// The denial in the place of a decision that no record could hold is one.
	records := n.records()
	i := slices.IndexFunc(records, func(r *audit.Record) bool { return r.Decision != nil && r.Decision.Value != nil })
	d := records[i].Decision
	d.Verdict, d.Value, d.Obligations, d.Reasons = policy.Deny, nil, nil, []audit.Reason{{Code: decide.CodeTooLarge, Text: "the policies said more than a record can hold"}}
	if report, different := w.replay(records, nil); !report.Equal() {
		t.Errorf("too large: %+v %+v", report, different)
	}
	d.Runs[0].Fuel++
	if report, _ := w.replay(records, nil); report.Different != 1 {
		t.Errorf("too large, with other fuel: %+v", report)
	}
	for name, c := range map[string]struct {
		change func(*audit.DecisionRecord)
		count  func(*replay.Report) uint64
	}{
		"masked":                          {func(d *audit.DecisionRecord) { d.Replay = audit.ReplayMasked }, func(r *replay.Report) uint64 { return r.Masked - 1 }},
		"erased":                          {func(d *audit.DecisionRecord) { d.Request.Bytes = nil }, func(r *replay.Report) uint64 { return r.Erased }},
		"an activation that is not there": {func(d *audit.DecisionRecord) { d.Activation = 999 }, func(r *replay.Report) uint64 { return r.Unknown }},
		"a kill that permits":             {func(d *audit.DecisionRecord) { d.Kill = &d.Request.Digest }, func(r *replay.Report) uint64 { return r.Different }},
		"more than a fail mode may say":   {func(d *audit.DecisionRecord) { d.Instead = 1 }, func(r *replay.Report) uint64 { return r.Different }},
		"a host error":                    {func(d *audit.DecisionRecord) { d.Runs[0].Trap = string(abi.TrapHost) }, func(r *replay.Report) uint64 { return r.Judged[replay.JudgedHost] }},
	} {
		records := n.records()
		i := slices.IndexFunc(records, func(r *audit.Record) bool { return r.Decision != nil && r.Decision.Verdict == policy.Allow })
		c.change(records[i].Decision)
		if report, _ := w.replay(records, nil); c.count(report) != 1 {
			t.Errorf("%s: %+v", name, report)
		}
	}
}

// A candidate shows what it would change: a higher limit allows what was denied.
func replayCandidate(t *testing.T, w *world, n *node) {
	r := w.release(3, w.replayed(6))
	env, err := bundle.SignRelease(r)
	w.must(err)
	draft := filepath.Join(t.TempDir(), "draft.dsse")
	w.write(draft, env)
	report, different := w.replay(n.records(), func(c *replay.Config) {
		c.Candidate, err = replay.ReadRelease(draft)
		w.must(err)
	})
	// 6 was denied in epoch 1, fresh and aging; the points loops and traps are gone.
	if report.Verdicts["deny -> allow"] != 2 || report.Rules["over_limit"].Gone < 2 || report.Rules[replay.CodeNoPoint].New == 0 || report.Points["loops"] == 0 {
		t.Fatalf("%+v", report)
	}
	if report.Judged[replay.JudgedStale] == 0 || report.Exact == 0 || report.Exact+report.Different+4+report.Judged[replay.JudgedStale]+report.Judged[replay.JudgedInstead] < report.Decisions {
		t.Fatalf("%+v", report)
	}
	for _, d := range different {
		if d.Point == policy.PointCustom && d.Recorded.Verdict != "deny" && d.Recorded.Verdict == d.Now.Verdict {
			t.Errorf("%+v", d)
		}
	}
}

// What is not at hand, and what is not what the leaf names, decides nothing.
func replayWithoutPackages(t *testing.T, w *world, n *node) {
	empty, err := replay.FindPackages(t.TempDir())
	w.must(err)
	report, _ := w.replay(n.records(), func(c *replay.Config) { c.Packages = empty })
	if report.Equal() || report.Exact != 0 || report.Unknown != report.Decisions-3-report.Judged[replay.JudgedInstead] || len(report.Problems) == 0 {
		t.Fatalf("%+v", report)
	}
	records := n.records()
	i := slices.IndexFunc(records, func(r *audit.Record) bool { return r.Activation != nil })
	records[i].Activation.Modules[0].Module[0] ^= 1
	if report, _ := w.replay(records, nil); report.Equal() || report.Unknown == 0 || report.Exact == 0 {
		t.Fatalf("%+v", report)
	}
}
