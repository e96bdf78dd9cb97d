package formats

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// otel writes OpenTelemetry's log records as OTLP/JSON, one LogsData a line, as the
// collector's file receiver reads it. It has names and verdicts, not requests and
// values: those stay in the ledger. Attributes follow the semantic conventions
// where there are some (gen_ai.*), and are named holdfast.* otherwise.
type otel struct{ lines }

type logsData struct {
	ResourceLogs []resourceLogs `json:"resourceLogs"`
}

type resourceLogs struct {
	Resource  otelResource `json:"resource"`
	ScopeLogs []scopeLogs  `json:"scopeLogs"`
}

type otelResource struct {
	Attributes attributes `json:"attributes"`
}

type scopeLogs struct {
	Scope      otelScope   `json:"scope"`
	LogRecords []logRecord `json:"logRecords"`
}

type otelScope struct {
	Name string `json:"name"`
}

type logRecord struct {
	Time       string     `json:"timeUnixNano"`
	Observed   string     `json:"observedTimeUnixNano"`
	Severity   int        `json:"severityNumber"`
	Text       string     `json:"severityText"`
	Body       anyValue   `json:"body"`
	EventName  string     `json:"eventName"`
	Attributes attributes `json:"attributes"`
	TraceID    string     `json:"traceId,omitempty"`
	SpanID     string     `json:"spanId,omitempty"`
}

// An anyValue has exactly one member.
type anyValue struct {
	String *string     `json:"stringValue,omitempty"`
	Int    *string     `json:"intValue,omitempty"` // int64 is text in JSON
	Array  *arrayValue `json:"arrayValue,omitempty"`
}

type arrayValue struct {
	Values []anyValue `json:"values"`
}

type attribute struct {
	Key   string   `json:"key"`
	Value anyValue `json:"value"`
}

type attributes []attribute

// text adds an attribute unless it is empty.
func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, attribute{key, anyValue{String: &value}})
	}
}

func (a *attributes) number(key string, n int64) {
	text := strconv.FormatInt(n, 10)
	*a = append(*a, attribute{key, anyValue{Int: &text}})
}

func (a *attributes) texts(key string, values []string) {
	if len(values) == 0 {
		return
	}
	list := arrayValue{Values: make([]anyValue, len(values))}
	for i := range values {
		list.Values[i].String = &values[i]
	}
	*a = append(*a, attribute{key, anyValue{Array: &list}})
}

// Severities of OpenTelemetry.
const (
	severityInfo = 9
	severityWarn = 13
)

func (o *otel) write(entries []*entry) error {
	if len(entries) == 0 {
		return nil
	}
	var resource attributes
	resource.text("service.name", "holdfast")
	resource.text("service.namespace", entries[0].tenant)
	resource.text("service.instance.id", entries[0].node)
	resource.text("holdfast.boot", entries[0].boot)
	records := make([]logRecord, len(entries))
	for i, e := range entries {
		records[i] = newLogRecord(e)
	}
	return o.enc.Encode(logsData{[]resourceLogs{{otelResource{resource}, []scopeLogs{{otelScope{"holdfast.ledger"}, records}}}}})
}

func newLogRecord(e *entry) logRecord {
	at := strconv.FormatInt(e.Time, 10)
	body := e.Kind.String()
	l := logRecord{Time: at, Observed: at, Severity: severityInfo, Text: "INFO", EventName: "holdfast." + e.Kind.String()}
	a := &l.Attributes
	a.text("holdfast.record", e.name())
	a.text("holdfast.leaf", e.leaf)
	switch {
	case e.Decision != nil:
		d := e.Decision
		body = fmt.Sprintf("%s at %s", d.Verdict, d.Point)
		if d.Verdict == policy.Deny {
			l.Severity, l.Text = severityWarn, "WARN"
		}
		l.TraceID, l.SpanID = hex.EncodeToString(d.Trace), hex.EncodeToString(d.Span)
		a.decision(e)
	case e.Activation != nil:
		a.number("holdfast.epoch", int64(e.Activation.Epoch))
		a.text("holdfast.release", e.Activation.Release.String())
	case e.Result != nil:
		a.result(e.Result)
	case e.Admin != nil:
		body = e.Admin.Event
		a.text("holdfast.event", e.Admin.Event)
		a.text("holdfast.text", e.Admin.Text)
	}
	l.Body.String = &body
	return l
}

func (a *attributes) decision(e *entry) {
	d := e.Decision
	a.text("holdfast.point", d.Point)
	a.text("holdfast.verdict", d.Verdict.String())
	codes := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		codes[i] = r.Code
	}
	a.texts("holdfast.reason.codes", codes)
	a.text("holdfast.request.id", d.RequestID)
	a.text("holdfast.subject.type", d.Subject.Type)
	a.text("holdfast.subject.id", d.Subject.ID)
	a.text("holdfast.action", d.Action)
	a.text("holdfast.resource.type", d.Resource.Type)
	a.text("holdfast.resource.id", d.Resource.ID)
	a.number("holdfast.epoch", int64(d.Epoch))
	if e.activation != nil {
		a.text("holdfast.release", e.activation.Release.String())
	}
	var names []string
	for _, m := range e.policies() {
		names = append(names, m.Name)
	}
	a.texts("holdfast.policies", names)
	a.number("holdfast.fuel", int64(e.fuel()))
	a.number("holdfast.latency_ns", d.Latency)
	a.text("holdfast.replay", e.replay())
	if d.Failure != nil {
		a.text("holdfast.failure.cause", d.Failure.Cause)
		a.text("holdfast.failure.mode", d.Failure.Mode.String())
	}
	if d.Stale != nil {
		a.text("holdfast.staleness", d.Stale.State)
	}
	if d.Kill != nil {
		a.text("holdfast.kill", d.Kill.String())
	}
	if d.Said != nil {
		a.said(d.Said)
	}
}

func (a *attributes) said(s *audit.Said) {
	if s.Agent != nil {
		a.text("gen_ai.agent.id", s.Agent.ID)
	}
	if s.Model != nil {
		a.text("gen_ai.request.model", s.Model.Requested)
		a.text("gen_ai.provider.name", s.Model.Provider)
	}
	if s.Tool != nil {
		a.text("gen_ai.tool.name", s.Tool.Name)
	}
	a.text("gen_ai.conversation.id", s.Session)
	a.text("holdfast.use_case", s.UseCase)
	a.text("holdfast.risk_class", s.RiskClass)
}

func (a *attributes) result(r *audit.ResultRecord) {
	a.text("holdfast.of.boot", r.Boot)
	a.number("holdfast.of.seq", int64(r.Seq))
	a.text("gen_ai.response.model", r.Served)
	if r.Finish != "" {
		a.texts("gen_ai.response.finish_reasons", []string{r.Finish})
	}
	a.text("error.type", r.Error)
	if r.Usage != nil {
		a.number("gen_ai.usage.input_tokens", int64(r.Usage.Input))
		a.number("gen_ai.usage.output_tokens", int64(r.Usage.Output))
	}
}
