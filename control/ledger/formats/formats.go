// Package formats writes proven records for the tools of others: Parquet for
// DuckDB, Spark and Athena, OPA's decision-log events, and OpenTelemetry's log
// records. What it writes is a copy for reading. The evidence is the export.
package formats

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The formats.
const (
	Parquet = "parquet"
	OPA     = "jsonl-opa"
	OTel    = "jsonl-otel"
)

// Names are the formats, for messages.
var Names = strings.Join([]string{Parquet, OPA, OTel}, ", ")

// A Writer writes records in the order in which a verification gives them. It
// keeps what it writes in memory only up to a bound.
type Writer struct {
	sink        sink
	node, boot  string
	tenant      string // of the boot
	activations map[uint64]*audit.ActivationRecord
	failed      error
}

// A sink writes the records of one batch.
type sink interface {
	write(records []*entry) error
	close() error
}

// An entry is a record with what is known beside it.
type entry struct {
	tenant, node, boot string
	leaf               string // 64 hexadecimal digits
	*audit.Record
	activation *audit.ActivationRecord // that the decision names, or nil
}

// New begins to write to w.
func New(format string, w io.Writer) (*Writer, error) {
	switch format {
	case Parquet:
		return &Writer{sink: newParquet(w)}, nil
	case OPA:
		return &Writer{sink: &opa{newLines(w)}}, nil
	case OTel:
		return &Writer{sink: &otel{newLines(w)}}, nil
	}
	return nil, fmt.Errorf("format %q; one of %s", format, Names)
}

// Records writes the records of one batch. After an error nothing more is written;
// Close returns it.
func (w *Writer) Records(p audit.Proven) {
	if p.Node != w.node || p.Boot != w.boot {
		w.node, w.boot, w.tenant, w.activations = p.Node, p.Boot, "", map[uint64]*audit.ActivationRecord{}
	}
	if w.failed != nil {
		return
	}
	entries := make([]*entry, 0, len(p.Records))
	for i, r := range p.Records {
		switch {
		case r.Boot != nil:
			w.tenant = r.Boot.Tenant
		case r.Activation != nil:
			w.activations[r.Seq] = r.Activation
		}
		e := &entry{tenant: w.tenant, node: p.Node, boot: p.Boot, leaf: hex.EncodeToString(p.Leaves[i][:]), Record: r}
		if r.Decision != nil {
			e.activation = w.activations[r.Decision.Activation]
		}
		entries = append(entries, e)
	}
	w.failed = w.sink.write(entries)
}

// Err is what went wrong so far.
func (w *Writer) Err() error { return w.failed }

// Close writes what is left.
func (w *Writer) Close() error {
	err := w.sink.close()
	if w.failed != nil {
		return w.failed
	}
	return err
}

// name is the record's name in one text.
func (e *entry) name() string { return fmt.Sprintf("%s/%s/%d", e.node, e.boot, e.Seq) }

// replay is what a replay can expect of the record.
func (e *entry) replay() string {
	if d := e.Decision; d.Request != nil && d.Request.Missing() {
		return "erased"
	}
	return e.Decision.Replay.String()
}

// policies are the modules that the decision's point asks.
func (e *entry) policies() (out []*audit.Module) {
	if e.activation == nil {
		return nil
	}
	for _, p := range e.activation.Points {
		if p.Name != e.Decision.Point {
			continue
		}
		for _, i := range p.Modules {
			if i < uint64(len(e.activation.Modules)) {
				out = append(out, &e.activation.Modules[i])
			}
		}
	}
	return out
}

func (e *entry) fuel() (n uint64) {
	for _, r := range e.Decision.Runs {
		n += r.Fuel
	}
	return n
}

// request is the request's JSON as it was asked, or nil.
func (e *entry) request() json.RawMessage {
	if p := e.Decision.Request; p != nil && json.Valid(p.Bytes) {
		return p.Bytes
	}
	return nil
}

// value is the decision's value as JSON, or nil.
func (e *entry) value() (json.RawMessage, error) { return asJSON[any](e.Decision.Value) }

// logs are what the modules logged as JSON, or nil.
func (e *entry) logs() (json.RawMessage, error) { return asJSON[[]abi.Log](e.Decision.Logs) }

func asJSON[T any](p *audit.Part) (json.RawMessage, error) {
	if p == nil || p.Bytes == nil {
		return nil, nil
	}
	var v T
	if err := wire.UnmarshalLoose(p.Bytes, &v); err != nil {
		return nil, fmt.Errorf("part: %w", err)
	}
	return json.Marshal(v)
}

func reasons(d *audit.DecisionRecord) []policy.Reason {
	out := make([]policy.Reason, len(d.Reasons))
	for i, r := range d.Reasons {
		out[i] = policy.Reason{Code: r.Code, Text: r.Text}
	}
	return out
}
