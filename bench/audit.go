package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/control/ledger/formats"
	"github.com/holdfast-policy/holdfast/control/ledger/index"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/replay"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// auditRecords is how many decisions a node makes for the part audit.
const auditRecords = 1_000_000

// audit has a node decide a million times, exports its journal, and measures what
// an auditor does with that: verification, replay, queries, files for others.
func (b *bench) audit(ctx context.Context) error {
	return b.auditOf(ctx, "Rego, RBAC, 100 bindings, small documents", auditRecords, rbacBodies)
}

// auditCalls is audit with the demo's policies and real tool calls.
func (b *bench) auditCalls(ctx context.Context) error {
	return b.auditOf(ctx, "the demo's two policies on real tool calls, with their declarations", auditRecords/10, toolCalls)
}

// work is what is decided and by what.
type work struct {
	points []bundle.Point
	files  map[wire.Digest][]byte
	calls  []demo.Call
}

func (b *bench) auditOf(ctx context.Context, name string, n int, of func(context.Context) (*work, error)) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := of(ctx)
	if err != nil {
		return err
	}
	e := &exported{fleet: filepath.Join(dir, "fleet"), dir: filepath.Join(dir, "export"), n: n}
	took, err := e.decide(ctx, w)
	if err != nil {
		return err
	}
	b.line("\nThe auditor's tools, %d decisions of a node: %s (records/s, median)", n, name)
	b.line("    %-44s %10.0f", "decided by the node, records written", float64(n)/took.Seconds())
	began := time.Now()
	if err := assembly.ExportJournals(assembly.Layout{Dir: e.fleet}, e.dir); err != nil {
		return err
	}
	size, err := folderBytes(e.dir)
	if err != nil {
		return err
	}
	b.line("    %-44s %10.0f, %.0f bytes a record", "ledger export", float64(n)/time.Since(began).Seconds(), float64(size)/float64(n))
	for _, m := range []struct {
		name string
		f    func(context.Context, *exported) error
	}{
		{"ledger verify", verifyExport}, {"ledger replay", replayExport}, {"index, made anew", indexExport},
		{"ledger query of one subject, over the index", querySubject}, {"ledger query of one record, over the index", queryRecord}, {"ledger query that reads all", queryAll},
		{"ledger export --format parquet", func(ctx context.Context, e *exported) error { return formatExport(ctx, e, formats.Parquet) }},
		{"ledger export --format jsonl-opa", func(ctx context.Context, e *exported) error { return formatExport(ctx, e, formats.OPA) }},
	} {
		var took sample
		for range min(b.rounds, 3) {
			began := time.Now()
			if err := m.f(ctx, e); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			took = append(took, time.Since(began))
		}
		b.line("    %-44s %10.0f", m.name, float64(n)/took.q(0.5).Seconds())
	}
	return nil
}

// exported is the journal of a node of a stopped fleet.
type exported struct {
	fleet, dir string
	n          int
}

func (e *exported) keys() (*audit.Keys, error) {
	file, err := os.ReadFile(assembly.Layout{Dir: e.fleet}.PublicKeys())
	if err != nil {
		return nil, err
	}
	return audit.ParseKeys(file)
}

// decide has a node decide n times, as four askers without a network ask it.
func (e *exported) decide(ctx context.Context, w *work) (time.Duration, error) {
	log := slog.New(slog.DiscardHandler)
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: e.fleet, Tenant: "bench", Edges: 1, Log: log})
	if err != nil {
		return 0, err
	}
	l := fleet.Layout()
	_, err = fleet.Publish(ctx, w.points, w.files)
	if err = errors.Join(err, fleet.Close()); err != nil {
		return 0, err
	}
	env, err := os.ReadFile(l.TrustRoot())
	if err != nil {
		return 0, err
	}
	root, err := bundle.ReopenTrustRoot(env)
	if err != nil {
		return 0, err
	}
	enrolment, err := os.ReadFile(l.Enrolment(assembly.NodeName(1)))
	if err != nil {
		return 0, err
	}
	node, err := assembly.StartEdge(ctx, assembly.EdgeConfig{
		Tenant: "bench", Node: assembly.NodeName(1), Dir: l.Node(assembly.NodeName(1)), Listen: "127.0.0.1:0",
		Root: root, Folder: l.Published(), Enrolment: enrolment, Log: log,
	})
	if err != nil {
		return 0, err
	}
	took, err := e.ask(ctx, node.Node(), w.calls)
	return took, errors.Join(err, node.Close())
}

func (e *exported) ask(ctx context.Context, node *edge.Node, calls []demo.Call) (time.Duration, error) {
	for node.Ready() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var askers sync.WaitGroup
	began := time.Now()
	for range 4 {
		askers.Go(func() {
			for i := next.Add(1); i <= int64(e.n) && failed.Load() == nil; i = next.Add(1) {
				call := &calls[int(i)%len(calls)]
				req, err := policy.ParseRequest(call.Point, call.Body)
				if err == nil {
					_, err = node.Decide(ctx, req)
				}
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	askers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return time.Since(began), nil
}

func rbacBodies(ctx context.Context) (*work, error) {
	points, files, err := rbacRelease(ctx)
	if err != nil {
		return nil, err
	}
	points[0].Durability = policy.Written
	w := &work{points: points, files: files}
	for i := range 1000 {
		body := fmt.Appendf(nil, `{"id":"req-%d","subject":{"type":"user","id":"user%d"},"action":{"name":"share"},"resource":{"type":"file","id":"f%d"},"document":{"user":"user%d","action":"share","type":"type%d"}}`, i, i%100, i, i%100, i%10)
		w.calls = append(w.calls, demo.Call{Point: policy.PointCustom, Body: body})
	}
	return w, nil
}

// toolCalls are the demo's policies and calls.
func toolCalls(ctx context.Context) (*work, error) {
	w := &work{files: map[wire.Digest][]byte{}, points: []bundle.Point{{Name: policy.PointPreCall, Durability: policy.Written}}}
	var err error
	if w.points[0].Packages, err = demoPolicies(ctx, w.files); err != nil {
		return nil, err
	}
	w.calls, err = demo.Calls(1)
	return w, err
}

func verifyExport(ctx context.Context, e *exported) error { return e.verify(ctx, audit.Options{}) }

func (e *exported) verify(ctx context.Context, o audit.Options) error {
	keys, err := e.keys()
	if err != nil {
		return err
	}
	r, err := audit.VerifyWith(ctx, os.DirFS(e.dir), keys, o)
	if err == nil && r.Verdict != audit.VerdictComplete {
		err = fmt.Errorf("the export is %s", r.Verdict)
	}
	return err
}

func replayExport(ctx context.Context, e *exported) error {
	eng, err := engine.New(ctx, engine.Config{Worker: engine.Self(), Cache: filepath.Join(e.fleet, "compiled")})
	if err != nil {
		return err
	}
	defer eng.Close(ctx)
	found, err := replay.FindPackages(assembly.Layout{Dir: e.fleet}.Published())
	if err != nil {
		return err
	}
	r, err := replay.New(ctx, replay.Config{Engine: eng, Packages: found})
	if err != nil {
		return err
	}
	err = e.verify(ctx, audit.Options{Records: func(p audit.Proven) { _ = r.Records(ctx, p.Node, p.Boot, p.Records) }})
	report, closeErr := r.Close(ctx)
	if err = errors.Join(err, closeErr); err == nil && (!report.Equal() || report.Exact != uint64(e.n)) {
		err = fmt.Errorf("%d of %d exact: %+v", report.Exact, e.n, report)
	}
	return err
}

func (e *exported) index() *index.Index {
	return &index.Index{Folder: audit.Folder{FS: os.DirFS(e.dir)}, Dir: index.Beside(e.dir)}
}

func indexExport(ctx context.Context, e *exported) error {
	if err := e.index().Rebuild(); err != nil {
		return err
	}
	_, err := e.index().Update(ctx)
	return err
}

func (e *exported) find(ctx context.Context, q *index.Query) error {
	var stats index.Stats
	for _, err := range e.index().Find(ctx, q, &stats, nil) {
		if err != nil {
			return err
		}
	}
	return nil
}

func querySubject(ctx context.Context, e *exported) error {
	return e.find(ctx, &index.Query{Subject: "nobody"})
}

func queryRecord(ctx context.Context, e *exported) error {
	return e.find(ctx, &index.Query{Seqs: audit.Range{From: uint64(e.n / 2), To: uint64(e.n/2) + 1}})
}

func queryAll(ctx context.Context, e *exported) error {
	return e.find(ctx, &index.Query{Verdicts: []policy.Verdict{policy.Throttle, policy.Allow, policy.Deny}})
}

func formatExport(ctx context.Context, e *exported, format string) error {
	w, err := formats.New(format, io.Discard)
	if err != nil {
		return err
	}
	err = e.verify(ctx, audit.Options{Records: w.Records})
	return errors.Join(err, w.Close())
}
