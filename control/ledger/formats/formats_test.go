package formats_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/control/ledger/formats"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func part(t testing.TB, v any) *audit.Part {
	t.Helper()
	b, err := wire.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return audit.NewPart(nil, b)
}

// records are one of each kind, and decisions of several sorts.
func records(t testing.TB) audit.Proven {
	kill := wire.Sum([]byte("kill"))
	list := []*audit.Record{
		{Seq: 1, Kind: audit.KindBoot, Time: 1, Boot: &audit.BootRecord{Tenant: "acme", Node: "n1", Boot: "b"}},
		{Seq: 2, Kind: audit.KindActivation, Time: 2, Activation: &audit.ActivationRecord{
			Epoch: 3, Release: wire.Sum([]byte("release")), Modules: []audit.Module{{Name: "tool-authz", Package: wire.Sum([]byte("p"))}},
			Points: []audit.Point{{Name: "tool.pre_call", Modules: []uint64{0}}},
		}},
		{Seq: 3, Kind: audit.KindDecision, Time: 1_700_000_000_123_456_789, Decision: &audit.DecisionRecord{
			Point: "tool.pre_call", RequestID: "r-3", Subject: audit.Entity{Type: "agent", ID: "a7"}, Action: "tools/call", Resource: audit.Entity{Type: "tool", ID: "pay"},
			Request: audit.NewPart(nil, []byte(`{"subject":{"type":"agent","id":"a7"},"context":{"n":1.50}}`)), Verdict: policy.Deny,
			Reasons: []audit.Reason{{Code: "over_limit", Text: "<too much>"}, {Code: "more"}}, Obligations: []policy.Obligation{{Type: "notify"}},
			Value: part(t, map[string]any{"a": int64(1)}), Activation: 2, Epoch: 3, Durability: policy.Synced,
			Failure: &audit.Failure{Mode: policy.FailEscalate, Cause: "fuel", Trap: "fuel_exhausted"}, Runs: []audit.Run{{Fuel: 5}, {Fuel: 7}}, Latency: 42,
			Logs: part(t, []abi.Log{{Level: 1, Text: "hello"}}), Stale: &audit.NotFresh{State: "aging", Age: 9}, Trace: bytes.Repeat([]byte{1}, 16), Span: bytes.Repeat([]byte{2}, 8),
			Said: &audit.Said{Agent: &audit.Agent{ID: "a7"}, Model: &audit.Model{Requested: "m"}, Tool: &audit.Tool{Name: "pay"}, UseCase: "u"},
		}},
		{Seq: 4, Kind: audit.KindDecision, Time: 4, Decision: &audit.DecisionRecord{
			Point: "custom", Resource: audit.Entity{Type: "data", ID: "p/doc"}, Activation: 2,
			Request: audit.NewPart(nil, []byte(`{"point":"custom","bare":true,"resource":{"type":"data","id":"p/doc"},"document":{"a":1}}`)), Value: part(t, int64(3)), Verdict: policy.Allow,
		}},
		{Seq: 5, Kind: audit.KindDecision, Time: 5, Decision: &audit.DecisionRecord{Point: "custom", Kill: &kill, Request: &audit.Part{Size: 9}, Reasons: []audit.Reason{{Code: "killed"}}}},
		{Seq: 6, Kind: audit.KindDecision, Time: 6, Decision: &audit.DecisionRecord{Point: "custom", Replay: audit.ReplayMasked, Activation: 999}},
		{Seq: 7, Kind: audit.KindAdmin, Time: 7, Admin: &audit.AdminRecord{Event: "overload", Text: "t", Count: 8}},
		{Seq: 8, Kind: audit.KindResult, Time: 8, Result: &audit.ResultRecord{Seq: 3, Usage: &audit.Usage{Input: 10, Output: 20, Cost: 30, Currency: "EUR"}, Finish: "stop", Served: "m-1"}},
	}
	p := audit.Proven{Node: "n1", Boot: "b", Records: list}
	for i := range list {
		p.Leaves = append(p.Leaves, tlog.RecordHash([]byte{byte(i)}))
	}
	return p
}

func written(t testing.TB, format string, batches ...audit.Proven) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := formats.New(format, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range batches {
		w.Records(p)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A Parquet file has a row for each record, and every member where it applies.
func TestParquet(t *testing.T) {
	raw := written(t, formats.Parquet, records(t))
	rows, err := parquet.Read[formats.Row](bytes.NewReader(raw), int64(len(raw)))
	if err != nil || len(rows) != 8 {
		t.Fatalf("%v, %d rows", err, len(rows))
	}
	d := rows[2]
	for name, c := range map[string][2]any{
		"tenant": {d.Tenant, "acme"}, "verdict": {*d.Verdict, "deny"}, "time": {d.Time, time.Unix(0, 1_700_000_000_123_456_000).UTC()}, "time_ns": {d.TimeNS, int64(1_700_000_000_123_456_789)},
		"reasons": {d.Reasons, []formats.Reason{{Code: "over_limit", Text: "<too much>"}, {Code: "more"}}}, "policies": {d.Policies, []string{"tool-authz"}},
		"packages": {d.Packages, []string{wire.Sum([]byte("p")).String()}}, "release": {*d.Release, wire.Sum([]byte("release")).String()}, "fuel": {*d.Fuel, int64(12)},
		"request": {*d.Request, `{"subject":{"type":"agent","id":"a7"},"context":{"n":1.50}}`}, "value": {*d.Value, `{"a":1}`}, "logs": {*d.Logs, `[{"level":1,"text":"hello"}]`},
		"obligations": {*d.Obligations, `[{"type":"notify"}]`}, "trap": {*d.Trap, "fuel_exhausted"}, "staleness": {*d.Staleness, "aging"}, "trace": {*d.TraceID, strings.Repeat("01", 16)},
		"use case": {*d.UseCase, "u"}, "agent": {*d.AgentID, "a7"}, "replay": {*d.Replay, "exact"}, "event": {d.Event, (*string)(nil)},
		"erased": {*rows[4].Replay, "erased"}, "masked": {*rows[5].Replay, "masked"}, "admin": {*rows[6].Count, int64(8)}, "result": {*rows[7].OutputTokens, int64(20)}, "of": {*rows[7].OfSeq, int64(3)},
		"epoch": {*rows[1].Epoch, int64(3)}, "no request": {rows[4].Request, (*string)(nil)},
	} {
		if !reflect.DeepEqual(c[0], c[1]) {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
	f, err := parquet.OpenFile(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]string{"time": "TIMESTAMP(isAdjustedToUTC=true,unit=MICROS)", "verdict": "STRING", "seq": "INT(64,true)"} {
		leaf, ok := f.Schema().Lookup(column)
		if !ok || leaf.Node.Type().String() != want {
			t.Errorf("%s: %t %v, want %s", column, ok, leaf.Node, want)
		}
	}
}

// A writer keeps no more than a bounded row group in memory, whatever is written.
func TestParquetIsWrittenAsItComes(t *testing.T) {
	large := records(t)
	for _, r := range large.Records {
		if r.Decision != nil {
			r.Decision.Request = audit.NewPart(nil, fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 400<<10)))
		}
	}
	batches := make([]audit.Proven, 40) // 64 MB of requests
	for i := range batches {
		batches[i] = large
	}
	raw := written(t, formats.Parquet, batches...)
	f, err := parquet.OpenFile(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || f.NumRows() != 320 || len(f.RowGroups()) < 2 {
		t.Fatalf("%v: %d rows in %d groups", err, f.NumRows(), len(f.RowGroups()))
	}
}

// The lines are those of testdata.
func TestLines(t *testing.T) {
	for _, format := range []string{formats.OPA, formats.OTel} {
		got := written(t, format, records(t))
		file := "testdata/" + format
		if os.Getenv("REWRITE") != "" {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v (REWRITE=1 writes it)\n%s", format, err, got)
		}
		for line := range bytes.Lines(got) {
			if !json.Valid(line) {
				t.Errorf("%s", line)
			}
		}
	}
}

type full struct{ room int }

var errFull = errors.New("no room")

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestErrorsAreTold(t *testing.T) {
	for _, format := range []string{formats.Parquet, formats.OPA, formats.OTel} {
		w, err := formats.New(format, &full{100})
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			w.Records(records(t))
		}
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", format, err)
		}
	}
	if _, err := formats.New("csv", nil); err == nil || !strings.Contains(err.Error(), formats.Names) {
		t.Errorf("%v", err)
	}
	w, _ := formats.New(formats.OPA, &bytes.Buffer{})
	broken := records(t)
	broken.Records[2].Decision.Value = audit.NewPart(nil, []byte{0xff})
	w.Records(broken)
	if err := w.Close(); err == nil || w.Err() == nil {
		t.Error("a value that is no CBOR was written")
	}
}

// README names every column, and every attribute that is written.
func TestReadmeNamesAll(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, path := range parquet.SchemaOf(formats.Row{}).Columns() {
		names[path[0]] = true
	}
	source, err := os.ReadFile("otel.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\.(?:text|texts|number)\("([^"]+)"`).FindAllSubmatch(source, -1) {
		names[string(m[1])] = true
	}
	if len(names) < 80 {
		t.Fatalf("%d names: this test looks at nothing", len(names))
	}
	for name := range names {
		if !bytes.Contains(readme, []byte("`"+name+"`")) {
			t.Errorf("%s is not in README.md", name)
		}
	}
}
