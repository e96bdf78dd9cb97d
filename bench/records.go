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
	recordRounds = 5        // of all calls
	recordAskers = 16       // at once
	opaUpload    = 32 << 10 // OPA's default for upload_size_limit_bytes
)

// records measures what a decision costs in bytes: the demo's 956 real tool calls,
// decided several times by a node, beside OPA's upload of the same decisions.
func (b *bench) records(ctx context.Context) error {
	b.line("\nBytes a record, %d rounds of 956 tool calls%18s %9s %9s %9s %9s %9s", recordRounds, "journal", "wire", "archive", "small", "digests", "OPA gzip")
	for _, ids := range []bool{true, false} {
		name := "without ids"
		if ids {
			name = "request id and trace context"
		}
		for _, fresh := range []bool{false, true} {
			what := "as the demo repeats them"
			if fresh {
				what = "no arguments twice"
			}
			s, err := measureRecords(ctx, ids, fresh)
			if err != nil {
				return err
			}
			b.line("  %-28s %-28s %7.0f %9.0f %9.0f %9.0f %9.0f %9.0f   wire/OPA %.2f", name, what, s.journal, s.wire, s.archive, s.small, s.digests, s.opa, s.wire/s.opa)
		}
	}
	b.line("  wire: frames of 1,000 records; small: of 50; archive: the same and the blobs beside them; digests: records whose parts were erased;")
	b.line("  OPA: its decision log events, JSON in gzip chunks of at most 32 KiB. Wanted: wire at most half of OPA; digests under 150, without ids 90")
	return nil
}

// sizes are bytes a record.
type sizes struct{ journal, wire, small, archive, digests, opa float64 }

func measureRecords(ctx context.Context, ids, fresh bool) (s sizes, err error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	home, e, err := demoEdge(ctx, dir)
	if err != nil {
		return s, err
	}
	events, err := askCalls(ctx, e.Node(), ids, fresh)
	if err != nil {
		return s, errors.Join(err, e.Close())
	}
	n := float64(len(events))
	if err := s.batches(e.Node(), n); err != nil {
		return s, errors.Join(err, e.Close())
	}
	if err := e.Close(); err != nil {
		return s, err
	}
	used, err := folderBytes(edge.JournalDir(home.Layout().Node(assembly.NodeName(1))))
	if err != nil {
		return s, err
	}
	upload, err := opaBytes(events)
	s.journal, s.opa = float64(used)/n, float64(upload)/n
	return s, err
}

// demoEdge is one node with the demo's policies in force.
func demoEdge(ctx context.Context, dir string) (*assembly.Home, *assembly.Edge, error) {
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: dir, Tenant: "bench", Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	host, err := loader.NewHost(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer host.Close(ctx)
	point := bundle.Point{Name: policy.PointPreCall, Durability: policy.Synced}
	files := map[wire.Digest][]byte{}
	for _, name := range []string{"tool-authz", "argument-guard"} {
		fsys, err := fs.Sub(modules.FS, name)
		if err != nil {
			return nil, nil, err
		}
		built, err := compiler.BuildFS(ctx, fsys, compiler.Options{Loader: host, Prebuilt: true})
		if err != nil {
			return nil, nil, err
		}
		point.Packages = append(point.Packages, bundle.PackageRef{Name: name, Digest: built.Digest, Size: built.Size})
		files[built.Digest] = built.File
	}
	published, err := home.Publish([]bundle.Point{point}, files)
	if err != nil {
		return nil, nil, err
	}
	e, err := assembly.StartEdge(ctx, assembly.EdgeConfig{
		Tenant: "bench", Node: assembly.NodeName(1), Dir: home.Layout().Node(assembly.NodeName(1)), Listen: "127.0.0.1:0",
		Root: home.Root(), Folder: home.Layout().Published(), Secret: home.Layout().Secret(), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		_, err = inForce(ctx, []string{e.URL()}, published.Epoch)
	}
	return home, e, err
}

// askCalls asks for all calls several times and returns OPA's events for them.
func askCalls(ctx context.Context, node *edge.Node, ids, fresh bool) ([][]byte, error) {
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
				body, err := request(calls[i%len(calls)].Body, i, ids, fresh)
				if err == nil {
					events[i], err = askOne(ctx, node, body, uint64(i), ids)
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

// request is a call's body with the ids of its own, or none; a fresh one says
// something that no other does.
func request(body []byte, i int, ids, fresh bool) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	said := map[string]json.RawMessage{}
	if err := json.Unmarshal(doc["context"], &said); err != nil {
		return nil, err
	}
	delete(doc, "id")
	if ids {
		doc["id"], _ = json.Marshal(uuid())
		said["traceparent"], _ = json.Marshal(fmt.Sprintf("00-%x-%x-01", random(16), random(8)))
	}
	if fresh {
		said["turn"], _ = json.Marshal(i)
	}
	var err error
	if doc["context"], err = json.Marshal(said); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func uuid() string {
	b := random(16)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func askOne(ctx context.Context, node *edge.Node, body []byte, n uint64, ids bool) ([]byte, error) {
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
	if ids {
		event["trace_id"], event["span_id"] = fmt.Sprintf("%x", random(16)), fmt.Sprintf("%x", random(8))
	}
	return json.Marshal(event)
}

// batches measures what is shipped and archived of the node's journal.
func (s *sizes) batches(node *edge.Node, n float64) error {
	j := node.Journal()
	boots := j.Boots()
	boot := boots[len(boots)-1]
	for _, size := range []int{1000, 50} {
		var whole, archive, digests int
		for from := uint64(1); from <= boot.Size; {
			batch, err := j.ReadBatch(boot.ID, from, size, 0)
			if err != nil {
				return err
			}
			from += uint64(len(batch.Entries))
			w, a, d, err := encoded(batch)
			if err != nil {
				return err
			}
			whole, archive, digests = whole+w, archive+a, digests+d
		}
		if size == 50 {
			s.small = float64(whole) / n
		} else {
			s.wire, s.archive, s.digests = float64(whole)/n, float64(archive)/n, float64(digests)/n
		}
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
