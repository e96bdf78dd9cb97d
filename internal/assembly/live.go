package assembly

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A LiveDecision is what `holdfast tail` shows of a recorded decision: its
// record without the request. It is a convenience over core NATS, may be lost,
// and proves nothing; the record does.
type LiveDecision struct {
	Node      string          `json:"node" cbor:"node"`
	Boot      string          `json:"boot" cbor:"boot"`
	Seq       uint64          `json:"seq" cbor:"seq"`
	Leaf      string          `json:"leaf" cbor:"leaf"`
	Time      string          `json:"time" cbor:"time"` // RFC 3339
	Point     string          `json:"point" cbor:"point"`
	Verdict   policy.Verdict  `json:"verdict" cbor:"verdict"`
	Subject   string          `json:"subject,omitempty" cbor:"subject,omitempty"` // type:id
	Action    string          `json:"action,omitempty" cbor:"action,omitempty"`
	Resource  string          `json:"resource,omitempty" cbor:"resource,omitempty"` // type:id
	RequestID string          `json:"request_id,omitempty" cbor:"request_id,omitempty"`
	Reasons   []policy.Reason `json:"reasons" cbor:"reasons,omitempty"`
	Epoch     uint64          `json:"epoch" cbor:"epoch"`
}

// NewLiveDecision describes a decision record.
func NewLiveDecision(node string, r *audit.Record, ref audit.Ref) LiveDecision {
	d := r.Decision
	l := LiveDecision{
		Node: node, Boot: ref.Boot, Seq: ref.Seq, Leaf: hex.EncodeToString(ref.Leaf[:]),
		Time: time.Unix(0, r.Time).UTC().Format(time.RFC3339Nano), Point: d.Point, Verdict: d.Verdict,
		Subject: entity(d.Subject), Action: d.Action, Resource: entity(d.Resource),
		RequestID: d.RequestID, Reasons: []policy.Reason{}, Epoch: d.Epoch,
	}
	for _, reason := range d.Reasons {
		l.Reasons = append(l.Reasons, policy.Reason{Code: reason.Code, Text: reason.Text})
	}
	return l
}

func entity(e audit.Entity) string {
	if e == (audit.Entity{}) {
		return ""
	}
	return e.Type + ":" + e.ID
}

func (l LiveDecision) encode(form jetstream.Form) ([]byte, error) {
	if form == jetstream.CBOR {
		return wire.Marshal(l)
	}
	return json.Marshal(l)
}

// A LiveFilter chooses live decisions; an empty field takes all.
type LiveFilter struct{ Node, Verdict, Point string }

// Tail calls show with each live decision of a fleet that the filter takes, seen
// from where the operator is connected, until ctx ends or show fails.
func Tail(ctx context.Context, cfg AdminConfig, filter LiveFilter, show func(LiveDecision) error) error {
	admin, err := OpenAdmin(ctx, cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stop, err := admin.conn.Subscribe(ctx, jetstream.LiveSubjects(cfg.Tenant, jetstream.JSON), func(m bus.Msg) {
		var live LiveDecision
		if json.Unmarshal(m.Data, &live) != nil || !filter.takes(live) {
			return
		}
		if err := show(live); err != nil {
			fail(err)
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	<-ctx.Done()
	return context.Cause(ctx)
}

func (f LiveFilter) takes(d LiveDecision) bool {
	return (f.Node == "" || f.Node == d.Node) && (f.Verdict == "" || f.Verdict == d.Verdict.String()) && (f.Point == "" || f.Point == d.Point)
}
