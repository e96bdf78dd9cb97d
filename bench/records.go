package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const (
	recordRounds = 10       // of all calls
	recordAskers = 16       // at once
	opaUpload    = 32 << 10 // OPA's default for upload_size_limit_bytes
)

// recordBytes measures what a decision costs in bytes: the demo's 956 real tool calls,
// decided several times by a node, beside OPA's upload of the same decisions.
func (b *bench) recordBytes(ctx context.Context) error {
	b.line("\nBytes a record, %d rounds of 956 tool calls%20s %9s %9s %9s %9s %9s %9s", recordRounds, "entry", "wire", "settled", "small", "archive", "digests", "OPA gzip")
	for _, v := range variants {
		s, err := measureRecords(ctx, v)
		if err != nil {
			return err
		}
		b.line("  %-60s %7.0f %9.0f %9.0f %9.0f %9.0f %9.0f %9.0f   settled/OPA %.2f", v.name, s.entry, s.wire, s.settled, s.small, s.archive, s.digests, s.opa, s.settled/s.opa)
	}
	b.line("  entry: in the journal, before its groups' 40 bytes; wire: frames of 1,000 records; settled: those of the second half, when the node knows what repeats;")
	b.line("  small: frames of 50; archive: wire and the blobs beside it; digests: records whose parts were erased;")
	b.line("  OPA: its decision log events, JSON in gzip chunks of at most 32 KiB. Wanted: at most half of OPA; digests under 150, without ids 90")
	return nil
}

// A variant is what ids a request bears, and whether it says what none said before.
type variant struct {
	name                string
	row, random, turned bool
}

var variants = []variant{
	{name: "as the demo makes them: the call's row as request id", row: true},
	{name: "the same, and in each a number that none has had", row: true, turned: true},
	{name: "no request id"},
	{name: "a new request id (UUID) and trace context in each", random: true},
	{name: "the same, and in each a number that none has had", random: true, turned: true},
}

// sizes are bytes a record.
type sizes struct{ entry, wire, settled, small, archive, digests, opa float64 }

func measureRecords(ctx context.Context, v variant) (s sizes, err error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	e, err := demoEdge(ctx, dir)
	if err != nil {
		return s, err
	}
	events, err := askCalls(ctx, e.Node(), v)
	if err == nil {
		err = s.batches(e.Node(), len(events))
	}
	if err := errors.Join(err, e.Close()); err != nil {
		return s, err
	}
	upload, err := opaBytes(events)
	s.opa = float64(upload) / float64(len(events))
	return s, err
}

// demoEdge is one node with the demo's policies in force.
func demoEdge(ctx context.Context, dir string) (*assembly.Edge, error) {
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: dir, Tenant: "bench", Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	point := bundle.Point{Name: policy.PointPreCall, Durability: policy.Synced}
	files := map[wire.Digest][]byte{}
	if point.Packages, err = demoPolicies(ctx, files); err != nil {
		return nil, err
	}
	published, err := home.Publish([]bundle.Point{point}, files)
	if err != nil {
		return nil, err
	}
	e, err := assembly.StartEdge(ctx, assembly.EdgeConfig{
		Tenant: "bench", Node: assembly.NodeName(1), Dir: home.Layout().Node(assembly.NodeName(1)), Listen: "127.0.0.1:0",
		Root: home.Root(), Folder: home.Layout().Published(), Secret: home.Layout().Secret(), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		_, err = inForce(ctx, []string{e.URL()}, published.Epoch)
	}
	return e, err
}

// demoPolicies builds the demo's policies, and adds their files.
func demoPolicies(ctx context.Context, files map[wire.Digest][]byte) (refs []bundle.PackageRef, err error) {
	host, err := loader.NewHost(ctx)
	if err != nil {
		return nil, err
	}
	defer host.Close(ctx)
	for _, name := range []string{"tool-authz", "argument-guard"} {
		fsys, err := fs.Sub(modules.FS, name)
		if err != nil {
			return nil, err
		}
		built, err := compiler.BuildFS(ctx, fsys, compiler.Options{Loader: host, Prebuilt: true})
		if err != nil {
			return nil, err
		}
		refs = append(refs, bundle.PackageRef{Name: name, Digest: built.Digest, Size: built.Size})
		files[built.Digest] = built.File
	}
	return refs, nil
}

// askCalls asks for all calls several times and returns OPA's events for them.
func askCalls(ctx context.Context, node *edge.Node, v variant) ([][]byte, error) {
	all, err := demo.Calls(1)
	if err != nil {
		return nil, err
	}
	var calls []demo.Call
	for _, c := range all {
		if c.Tampering == "" {
			calls = append(calls, c)
		}
	}
	events := make([][]byte, recordRounds*len(calls))
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var asking sync.WaitGroup
	for range recordAskers {
		asking.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(events); i = int(next.Add(1)) - 1 {
				trace, span := fmt.Sprintf("%x", random(16)), fmt.Sprintf("%x", random(8))
				body, err := request(calls[i%len(calls)].Body, i, v, "00-"+trace+"-"+span+"-01")
				if err == nil && v.random {
					events[i], err = askOne(ctx, node, body, uint64(i), trace, span)
				} else if err == nil {
					events[i], err = askOne(ctx, node, body, uint64(i), "", "")
				}
				if err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	asking.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return events, nil
}

// request is a call's body as the variant has it.
func request(body []byte, i int, v variant, parent string) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	said := map[string]json.RawMessage{}
	if err := json.Unmarshal(doc["context"], &said); err != nil {
		return nil, err
	}
	if !v.row {
		delete(doc, "id")
	}
	if v.random {
		doc["id"], said["traceparent"] = quoted(uuid()), quoted(parent)
	}
	if v.turned {
		said["turn"] = quoted(fmt.Sprint(i))
	}
	var err error
	if doc["context"], err = json.Marshal(said); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

func quoted(s string) json.RawMessage { return json.RawMessage(`"` + s + `"`) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func uuid() string {
	b := random(16)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func askOne(ctx context.Context, node *edge.Node, body []byte, n uint64, trace, span string) ([]byte, error) {
	req, err := policy.ParseRequest(policy.PointPreCall, body)
	if err != nil {
		return nil, err
	}
	a, err := node.Decide(ctx, req)
	if err != nil {
		return nil, err
	}
	if !a.Recorded {
		return nil, fmt.Errorf("not recorded: %+v", a)
	}
	took := a.Timing.Decide.Nanoseconds()
	// The members of OPA's event (EventV1) that its server fills, with its default metrics.
	event := map[string]any{
		"labels": map[string]string{"id": "0d3b4d42-7a5c-4c11-9d1b-2f6a3a5be001", "version": "1.22.2"}, "decision_id": uuid(),
		"bundles": map[string]any{"authz": map[string]string{"revision": "1"}}, "path": "tool/pre_call", "input": json.RawMessage(body),
		"result":       map[string]any{"verdict": a.Verdict, "reasons": a.Reasons, "obligations": a.Obligations},
		"requested_by": "127.0.0.1:40122", "timestamp": time.Now().UTC().Format(time.RFC3339Nano), "req_id": n + 1,
		"metrics": map[string]any{"counter_server_query_cache_hit": 1, "timer_rego_input_parse_ns": took / 7, "timer_rego_query_eval_ns": took, "timer_server_handler_ns": took + took/5},
	}
	if trace != "" {
		event["trace_id"], event["span_id"] = trace, span
	}
	return json.Marshal(event)
}

// batches measures what is shipped and archived of the node's journal.
func (s *sizes) batches(node *edge.Node, decisions int) error {
	j := node.Journal()
	boots := j.Boots()
	boot := boots[len(boots)-1]
	n := float64(decisions)
	for _, size := range []int{1000, 50} {
		var whole, settled, later, archive, digests, entries int
		for from := uint64(1); from <= boot.Size; {
			batch, err := j.ReadBatch(boot.ID, from, size, 0)
			if err != nil {
				return err
			}
			w, a, d, err := encoded(batch)
			if err != nil {
				return err
			}
			whole, archive, digests = whole+w, archive+a, digests+d
			if from > boot.Size/2 {
				settled, later = settled+w, later+len(batch.Entries)
			}
			for _, e := range batch.Entries {
				entries += len(audit.AppendEntry(nil, e))
			}
			from += uint64(len(batch.Entries))
		}
		if size == 50 {
			s.small = float64(whole) / n
			continue
		}
		s.entry, s.wire, s.settled = float64(entries)/n, float64(whole)/n, float64(settled)/float64(later)
		s.archive, s.digests = float64(archive)/n, float64(digests)/n
	}
	return nil
}

func encoded(batch *audit.Batch) (whole, archive, digests int, err error) {
	frame, err := batch.Encode()
	if err != nil {
		return 0, 0, 0, err
	}
	rest, side := batch.Split()
	kept, err := rest.Encode()
	if err != nil {
		return 0, 0, 0, err
	}
	archive = len(kept)
	if side != nil {
		beside, err := side.Encode()
		if err != nil {
			return 0, 0, 0, err
		}
		archive += len(beside)
	}
	erased := *batch
	erased.Entries = nil
	for _, e := range batch.Entries {
		erased.Entries = append(erased.Entries, audit.Entry{Leaf: e.Leaf})
	}
	left, err := erased.Encode()
	return len(frame), archive, len(left), err
}

// opaBytes is what OPA's plugin uploads: arrays of events, each chunk compressed
// to at most opaUpload, as full as it can be.
func opaBytes(events [][]byte) (total int, err error) {
	chunk := func(n int) (int, error) {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(append(append([]byte{'['}, bytes.Join(events[:n], []byte{','})...), ']'))
		err = errors.Join(err, w.Close())
		return out.Len(), err
	}
	for len(events) > 0 {
		n, size := 0, 0
		for step := 128; step > 0; step /= 2 {
			for n+step <= len(events) {
				full, err := chunk(n + step)
				if err != nil {
					return 0, err
				}
				if full > opaUpload {
					break
				}
				n, size = n+step, full
			}
		}
		if n == 0 {
			return 0, errors.New("an event is larger than an upload")
		}
		total, events = total+size, events[n:]
	}
	return total, nil
}
