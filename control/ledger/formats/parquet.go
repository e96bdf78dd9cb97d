package formats

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A Row is one record in Parquet. Members that do not apply are null. Times are
// microseconds in UTC, because Spark and Athena know no shorter ones; time_ns is
// exact. Documents of unknown shape are JSON in text columns.
type Row struct {
	Tenant string    `parquet:"tenant,dict"`
	Node   string    `parquet:"node,dict"`
	Boot   string    `parquet:"boot,dict"`
	Seq    int64     `parquet:"seq,delta"`
	Leaf   string    `parquet:"leaf"` // hexadecimal
	Time   time.Time `parquet:"time,timestamp(microsecond)"`
	TimeNS int64     `parquet:"time_ns,delta"` // since 1970
	Kind   string    `parquet:"kind,dict"`     // decision, activation, boot, admin, result

	// Of decisions.
	Point        *string  `parquet:"point,optional,dict"`
	RequestID    *string  `parquet:"request_id,optional"`
	SubjectType  *string  `parquet:"subject_type,optional,dict"`
	SubjectID    *string  `parquet:"subject_id,optional,dict"`
	Action       *string  `parquet:"action,optional,dict"`
	ResourceType *string  `parquet:"resource_type,optional,dict"`
	ResourceID   *string  `parquet:"resource_id,optional,dict"`
	Verdict      *string  `parquet:"verdict,optional,dict"`
	Reasons      []Reason `parquet:"reasons,list"`
	Obligations  *string  `parquet:"obligations,optional"` // JSON list
	Value        *string  `parquet:"value,optional"`       // JSON
	Request      *string  `parquet:"request,optional"`     // JSON, as it was asked
	Logs         *string  `parquet:"logs,optional"`        // JSON list
	Replay       *string  `parquet:"replay,optional,dict"` // exact, masked, erased
	Epoch        *int64   `parquet:"epoch,optional"`
	Release      *string  `parquet:"release,optional,dict"` // digest
	Policies     []string `parquet:"policies,list,dict"`    // names, in order
	Packages     []string `parquet:"packages,list,dict"`    // their digests
	Durability   *string  `parquet:"durability,optional,dict"`
	FailMode     *string  `parquet:"fail_mode,optional,dict"`
	FailCause    *string  `parquet:"fail_cause,optional,dict"`
	Trap         *string  `parquet:"trap,optional,dict"`
	Staleness    *string  `parquet:"staleness,optional,dict"`
	StaleNS      *int64   `parquet:"stale_ns,optional"`
	Killed       *string  `parquet:"killed,optional,dict"` // digest of the kill
	Fuel         *int64   `parquet:"fuel,optional"`
	LatencyNS    *int64   `parquet:"latency_ns,optional"`
	TraceID      *string  `parquet:"trace_id,optional"` // hexadecimal
	SpanID       *string  `parquet:"span_id,optional"`

	// As the asker stated it.
	AgentID        *string `parquet:"agent_id,optional,dict"`
	OnBehalfOf     *string `parquet:"on_behalf_of,optional,dict"`
	ModelRequested *string `parquet:"model_requested,optional,dict"`
	ModelProvider  *string `parquet:"model_provider,optional,dict"`
	ToolServer     *string `parquet:"tool_server,optional,dict"`
	ToolName       *string `parquet:"tool_name,optional,dict"`
	UseCase        *string `parquet:"use_case,optional,dict"`
	RiskClass      *string `parquet:"risk_class,optional,dict"`
	Purpose        *string `parquet:"purpose,optional,dict"`
	Classification *string `parquet:"classification,optional,dict"`
	Region         *string `parquet:"region,optional,dict"`
	Session        *string `parquet:"session,optional"`

	// Of results, and of answers in the place of a decision: whose. Of results: what
	// it was.
	OfBoot       *string `parquet:"of_boot,optional,dict"`
	OfSeq        *int64  `parquet:"of_seq,optional"`
	ModelServed  *string `parquet:"model_served,optional,dict"`
	InputTokens  *int64  `parquet:"input_tokens,optional"`
	OutputTokens *int64  `parquet:"output_tokens,optional"`
	CostMicros   *int64  `parquet:"cost_micros,optional"` // millionths of currency
	Currency     *string `parquet:"currency,optional,dict"`
	Finish       *string `parquet:"finish,optional,dict"`
	Error        *string `parquet:"error,optional"`

	// Of administrative records.
	Event *string `parquet:"event,optional,dict"`
	Text  *string `parquet:"text,optional"`
	Count *int64  `parquet:"count,optional"`
}

// Reason is one of a decision's reasons.
type Reason struct {
	Code string `parquet:"code,dict"`
	Text string `parquet:"text"`
}

// Bounds of a row group, which is what a Parquet writer keeps in memory.
const (
	maxGroupRows  = 100_000
	maxGroupBytes = 32 << 20
)

type parquetSink struct {
	w     *parquet.GenericWriter[Row]
	rows  []Row
	group struct{ rows, bytes int }
}

func newParquet(w io.Writer) *parquetSink {
	return &parquetSink{w: parquet.NewGenericWriter[Row](w,
		parquet.Compression(&zstd.Codec{}), parquet.CreatedBy("holdfast", "", ""), parquet.DataPageStatistics(true),
	)}
}

func (s *parquetSink) write(entries []*entry) error {
	for _, e := range entries {
		row, err := newRow(e)
		if err != nil {
			return err
		}
		s.rows = append(s.rows, *row)
		s.group.rows++
		s.group.bytes += row.bytes()
		if s.group.rows == maxGroupRows || s.group.bytes > maxGroupBytes {
			if err := s.flush(true); err != nil {
				return err
			}
		}
	}
	return s.flush(false)
}

func (s *parquetSink) flush(group bool) error {
	_, err := s.w.Write(s.rows)
	clear(s.rows)
	if s.rows = s.rows[:0]; err == nil && group {
		s.group.rows, s.group.bytes = 0, 0
		err = s.w.Flush()
	}
	return err
}

func (s *parquetSink) close() error { return s.w.Close() }

// bytes bounds what the row occupies.
func (r *Row) bytes() int {
	const fixed = 1 << 10
	n := fixed + length(r.Request) + length(r.Value) + length(r.Logs) + length(r.Obligations) + length(r.Text) + length(r.Error)
	for _, reason := range r.Reasons {
		n += len(reason.Code) + len(reason.Text)
	}
	return n
}

func length(s *string) int {
	if s == nil {
		return 0
	}
	return len(*s)
}

// opt is null for the empty text.
func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func num[T int64 | uint64](n T) *int64 {
	signed := int64(n)
	return &signed
}

func newRow(e *entry) (*Row, error) {
	r := &Row{
		Tenant: e.tenant, Node: e.node, Boot: e.boot, Seq: int64(e.Seq), Leaf: e.leaf,
		Time: time.Unix(0, e.Time).UTC(), TimeNS: e.Time, Kind: e.Kind.String(),
	}
	switch {
	case e.Decision != nil:
		return r, r.decision(e)
	case e.Activation != nil:
		r.Epoch, r.Release = num(e.Activation.Epoch), opt(e.Activation.Release.String())
	case e.Result != nil:
		r.result(e)
	case e.Admin != nil:
		r.Event, r.Text, r.Count = opt(e.Admin.Event), opt(e.Admin.Text), num(e.Admin.Count)
	}
	return r, nil
}

func (r *Row) decision(e *entry) (err error) {
	d := e.Decision
	r.Point, r.RequestID, r.Action = opt(d.Point), opt(d.RequestID), opt(d.Action)
	r.SubjectType, r.SubjectID, r.ResourceType, r.ResourceID = opt(d.Subject.Type), opt(d.Subject.ID), opt(d.Resource.Type), opt(d.Resource.ID)
	r.Verdict, r.Replay, r.Durability = opt(d.Verdict.String()), opt(e.replay()), opt(d.Durability.String())
	r.Epoch, r.Fuel, r.LatencyNS = num(d.Epoch), num(e.fuel()), num(d.Latency)
	r.TraceID, r.SpanID = opt(hex.EncodeToString(d.Trace)), opt(hex.EncodeToString(d.Span))
	for _, reason := range d.Reasons {
		r.Reasons = append(r.Reasons, Reason{reason.Code, reason.Text})
	}
	if e.activation != nil {
		r.Release = opt(e.activation.Release.String())
	}
	for _, m := range e.policies() {
		r.Policies, r.Packages = append(r.Policies, m.Name), append(r.Packages, m.Package.String())
	}
	if d.Failure != nil {
		r.FailMode, r.FailCause, r.Trap = opt(d.Failure.Mode.String()), opt(d.Failure.Cause), opt(d.Failure.Trap)
	}
	if d.Stale != nil {
		r.Staleness, r.StaleNS = opt(d.Stale.State), num(d.Stale.Age)
	}
	if d.Kill != nil {
		r.Killed = opt(d.Kill.String())
	}
	if d.Instead != 0 {
		r.OfBoot, r.OfSeq = opt(e.boot), num(d.Instead)
	}
	if d.Said != nil {
		r.said(d.Said)
	}
	return r.documents(e)
}

func (r *Row) documents(e *entry) error {
	value, err := e.value()
	if err != nil {
		return err
	}
	logs, err := e.logs()
	if err != nil {
		return err
	}
	r.Request, r.Value, r.Logs = opt(string(e.request())), opt(string(value)), opt(string(logs))
	if len(e.Decision.Obligations) > 0 {
		text, err := json.Marshal(e.Decision.Obligations)
		if err != nil {
			return err
		}
		r.Obligations = opt(string(text))
	}
	return nil
}

func (r *Row) said(s *audit.Said) {
	r.UseCase, r.RiskClass, r.Purpose, r.Session = opt(s.UseCase), opt(s.RiskClass), opt(s.Purpose), opt(s.Session)
	r.Classification, r.Region = opt(s.Classification), opt(s.Region)
	if s.Agent != nil {
		r.AgentID = opt(s.Agent.ID)
	}
	if s.OnBehalfOf != nil {
		r.OnBehalfOf = opt(s.OnBehalfOf.ID)
	}
	if s.Model != nil {
		r.ModelRequested, r.ModelServed, r.ModelProvider = opt(s.Model.Requested), opt(s.Model.Served), opt(s.Model.Provider)
	}
	if s.Tool != nil {
		r.ToolServer, r.ToolName = opt(s.Tool.Server), opt(s.Tool.Name)
	}
}

func (r *Row) result(e *entry) {
	d := e.Result
	r.OfBoot, r.OfSeq, r.Finish, r.Error, r.ModelServed = opt(d.Boot), num(d.Seq), opt(d.Finish), opt(d.Error), opt(d.Served)
	if d.Boot == "" {
		r.OfBoot = opt(e.boot)
	}
	if d.Usage != nil {
		r.InputTokens, r.OutputTokens, r.CostMicros, r.Currency = num(d.Usage.Input), num(d.Usage.Output), num(d.Usage.Cost), opt(d.Usage.Currency)
	}
}
