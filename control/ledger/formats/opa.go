package formats

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// lines writes JSON values, one a line.
type lines struct {
	buffer *bufio.Writer
	enc    *json.Encoder
}

func newLines(w io.Writer) lines {
	b := bufio.NewWriterSize(w, 256<<10)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return lines{b, enc}
}

func (l lines) close() error { return l.buffer.Flush() }

// opa writes OPA's decision-log events (EventV1), for collectors that know them.
// Only decisions are events.
type opa struct{ lines }

// event is an EventV1, and under "custom" what it has no member for.
type event struct {
	Labels     map[string]string   `json:"labels"`
	DecisionID string              `json:"decision_id"`
	TraceID    string              `json:"trace_id,omitempty"`
	SpanID     string              `json:"span_id,omitempty"`
	Bundles    map[string]revision `json:"bundles,omitempty"`
	Path       string              `json:"path"`
	Input      json.RawMessage     `json:"input,omitempty"`
	Result     any                 `json:"result,omitempty"`
	Erased     []string            `json:"erased,omitempty"`
	Masked     []string            `json:"masked,omitempty"`
	Error      *eventError         `json:"error,omitempty"`
	Timestamp  time.Time           `json:"timestamp"`
	Metrics    map[string]int64    `json:"metrics"`
	Custom     map[string]any      `json:"custom"`
}

type revision struct {
	Revision string `json:"revision"`
}

type eventError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// result is the result of a request that was no bare document.
type result struct {
	Verdict     policy.Verdict      `json:"verdict"`
	Reasons     []policy.Reason     `json:"reasons"`
	Obligations []policy.Obligation `json:"obligations,omitempty"`
	Value       json.RawMessage     `json:"value,omitempty"`
}

func (o *opa) write(entries []*entry) error {
	for _, e := range entries {
		if e.Decision == nil {
			continue
		}
		ev, err := newEvent(e)
		if err == nil {
			err = o.enc.Encode(ev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func newEvent(e *entry) (*event, error) {
	d := e.Decision
	value, err := e.value()
	if err != nil {
		return nil, err
	}
	ev := &event{
		Labels:     map[string]string{"id": e.node, "tenant": e.tenant, "boot": e.boot},
		DecisionID: e.name(), TraceID: hex.EncodeToString(d.Trace), SpanID: hex.EncodeToString(d.Span),
		Path: strings.ReplaceAll(d.Point, ".", "/"), Input: e.request(), Timestamp: time.Unix(0, e.Time).UTC(),
		Result:  result{d.Verdict, reasons(d), d.Obligations, value},
		Metrics: map[string]int64{"timer_server_handler_ns": d.Latency, "counter_holdfast_fuel": int64(e.fuel())},
		Custom: map[string]any{
			"leaf": e.leaf, "seq": e.Seq, "point": d.Point, "verdict": d.Verdict.String(), "reasons": reasons(d), "epoch": d.Epoch, "replay": e.replay(),
		},
	}
	for _, m := range e.policies() {
		if ev.Bundles == nil {
			ev.Bundles = map[string]revision{}
		}
		ev.Bundles[m.Name] = revision{m.Package.String()}
	}
	if e.activation != nil {
		ev.Custom["release"] = e.activation.Release.String()
	}
	if d.RequestID != "" {
		ev.Custom["request_id"] = d.RequestID
	}
	switch e.replay() {
	case "erased":
		ev.Erased = []string{"/input"}
	case "masked":
		ev.Masked = []string{"/input"}
	}
	if d.Failure != nil {
		ev.Error = &eventError{Code: d.Failure.Cause, Message: strings.TrimSpace(d.Failure.Mode.String() + " " + d.Failure.Trap)}
	}
	ev.bare(e, value)
	return ev, nil
}

// bare writes what OPA's data API was asked as OPA would: the document, the path
// and the bare value.
func (ev *event) bare(e *entry, value json.RawMessage) {
	var req struct {
		Bare     bool            `json:"bare"`
		Document json.RawMessage `json:"document"`
	}
	d := e.Decision
	if ev.Input == nil || d.Resource.Type != "data" || json.Unmarshal(ev.Input, &req) != nil || !req.Bare {
		return
	}
	ev.Path, ev.Input, ev.Result = d.Resource.ID, req.Document, nil
	if value != nil {
		ev.Result = value
	}
}
