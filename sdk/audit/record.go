package audit

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Kind says which of a Record's members is set.
type Kind uint8

// The kinds of records.
const (
	KindDecision Kind = iota + 1
	KindActivation
	KindBoot
	KindAdmin
	KindResult
)

func (k Kind) String() string {
	names := [...]string{"invalid", "decision", "activation", "boot", "admin", "result"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// A Record is one leaf of a boot's tree: exactly one of the members after Time
// is set, the one that Kind names.
type Record struct {
	// Seq is assigned by the journal: from 1, without gaps, within a boot.
	Seq  uint64 `cbor:"1,keyasint"`
	Kind Kind   `cbor:"2,keyasint"`
	// Time is the node's wall clock in nanoseconds since 1970. It orders nothing.
	Time       int64             `cbor:"3,keyasint"`
	Decision   *DecisionRecord   `cbor:"4,keyasint,omitempty"`
	Activation *ActivationRecord `cbor:"5,keyasint,omitempty"`
	Boot       *BootRecord       `cbor:"6,keyasint,omitempty"`
	Admin      *AdminRecord      `cbor:"7,keyasint,omitempty"`
	Result     *ResultRecord     `cbor:"8,keyasint,omitempty"`

	// Key is that of the record's parts; nil when it has none. It is stored
	// beside them, and erased with them.
	Key PartKey `cbor:"-"`
}

// A DecisionRecord is one answered decision.
type DecisionRecord struct {
	Point     string `cbor:"1,keyasint"`
	RequestID string `cbor:"2,keyasint,omitempty"`
	Subject   Entity `cbor:"3,keyasint,omitempty"`
	Action    string `cbor:"4,keyasint,omitempty"`
	Resource  Entity `cbor:"5,keyasint,omitempty"`
	// Request is the request as it was decided on.
	Request     *Part               `cbor:"6,keyasint,omitempty"`
	Verdict     policy.Verdict      `cbor:"7,keyasint"`
	Reasons     []Reason            `cbor:"8,keyasint,omitempty"`
	Obligations []policy.Obligation `cbor:"9,keyasint,omitempty"`
	// Value is the decision's value.
	Value *Part `cbor:"10,keyasint,omitempty"`
	// Activation is the seq, in this boot, of the leaf that put the set in force
	// which decided; 0 when none was in force.
	Activation uint64 `cbor:"11,keyasint,omitempty"`
	Epoch      uint64 `cbor:"12,keyasint,omitempty"`
	// Durability is the class that the point required.
	Durability policy.Durability `cbor:"13,keyasint,omitempty"`
	// Failure is set when a fail mode gave the verdict.
	Failure *Failure `cbor:"14,keyasint,omitempty"`
	Runs    []Run    `cbor:"15,keyasint,omitempty"`
	// Latency is what deciding took, in nanoseconds, without the recording.
	Latency int64 `cbor:"16,keyasint,omitempty"`
	// Logs is what the modules logged.
	Logs *Part `cbor:"17,keyasint,omitempty"`
	// Stale is set when the node was not fresh, Kill when a kill stopped the
	// request, before any policy was asked.
	Stale *NotFresh    `cbor:"18,keyasint,omitempty"`
	Kill  *wire.Digest `cbor:"19,keyasint,omitempty"`
	// Replay says whether the parts hold what was decided on.
	Replay Replay `cbor:"20,keyasint,omitempty"`
	// Trace and Span are those of the asker (W3C Trace Context), 16 and 8 bytes.
	Trace []byte `cbor:"21,keyasint,omitempty"`
	Span  []byte `cbor:"22,keyasint,omitempty"`
	// Said is what governance asks for of the request, as the asker stated it.
	Said *Said `cbor:"23,keyasint,omitempty"`
	// Instead is the seq, in this boot, of the record of a decision in whose place
	// this is what was answered, by a fail mode; that one has request, value and runs.
	Instead uint64 `cbor:"24,keyasint,omitempty" shape:"seldom"`
}

// NotFresh says how long a node had heard no heartbeat when it decided.
type NotFresh struct {
	// State is aging or stale.
	State string `cbor:"1,keyasint"`
	// Age is in nanoseconds.
	Age int64 `cbor:"2,keyasint"`
	// Heard are the regions that were heard not longer ago than the release's
	// bound for aging.
	Heard []string `cbor:"3,keyasint,omitempty"`
}

// An Entity is a subject or resource without its properties, which are in the
// request.
type Entity struct {
	Type string `cbor:"1,keyasint,omitempty"`
	ID   string `cbor:"2,keyasint,omitempty"`
}

// A Reason is a policy.Reason with short keys.
type Reason struct {
	Code string `cbor:"1,keyasint"`
	Text string `cbor:"2,keyasint,omitempty"`
}

// A Failure says which fail mode answered, and why.
type Failure struct {
	Mode policy.FailMode `cbor:"1,keyasint"`
	// Cause is error, fuel, overload, log_failure, durability or stale.
	Cause string `cbor:"2,keyasint"`
	// Trap is the trap code of the module that ended without a decision.
	Trap string `cbor:"3,keyasint,omitempty"`
	// Module is the digest of that module.
	Module *wire.Digest `cbor:"4,keyasint,omitempty"`
}

// A Run is one module's part in a decision.
type Run struct {
	// Module is an index into the Modules of the activation leaf.
	Module  uint64         `cbor:"1,keyasint,omitempty"`
	Verdict policy.Verdict `cbor:"2,keyasint"`
	Fuel    uint64         `cbor:"3,keyasint,omitempty"`
	Trap    string         `cbor:"4,keyasint,omitempty"`
}

// An ActivationRecord puts a set in force. It names every digest once; the
// decisions that follow name its seq.
type ActivationRecord struct {
	Epoch    uint64      `cbor:"1,keyasint"`
	Release  wire.Digest `cbor:"2,keyasint"`
	Fallback bool        `cbor:"3,keyasint,omitempty"`
	Author   string      `cbor:"4,keyasint,omitempty"`
	Approver string      `cbor:"5,keyasint,omitempty"`
	Modules  []Module    `cbor:"6,keyasint,omitempty"`
	Points   []Point     `cbor:"7,keyasint,omitempty"`
}

// A Module is one policy of a set.
type Module struct {
	Name    string      `cbor:"1,keyasint"`
	Package wire.Digest `cbor:"2,keyasint"`
	Module  wire.Digest `cbor:"3,keyasint"`
	// Params is the digest of the parameters' CBOR encoding, if there are any.
	Params *wire.Digest `cbor:"4,keyasint,omitempty"`
}

// A Point lists the modules of one decision point, in order, as indices into
// the activation's Modules.
type Point struct {
	Name    string   `cbor:"1,keyasint"`
	Modules []uint64 `cbor:"2,keyasint,omitempty"`
	// Retention is how long ledgers keep the point's records; nil is for ever.
	Retention *Retention `cbor:"3,keyasint,omitempty"`
}

// Retention is a class of records, and how long they are kept.
type Retention struct {
	Class string `cbor:"1,keyasint"`
	// RecordsDays and PartsDays are days; 0 is for ever, of parts as long as the
	// record.
	RecordsDays uint64 `cbor:"2,keyasint,omitempty"`
	PartsDays   uint64 `cbor:"3,keyasint,omitempty"`
}

// A BootRecord is the first leaf of every boot. It names the boot before it
// and that boot's last checkpoint, so that neither can be taken away unseen.
type BootRecord struct {
	Tenant string `cbor:"1,keyasint"`
	Node   string `cbor:"2,keyasint"`
	Boot   string `cbor:"3,keyasint"`
	// Previous is empty on a node's first boot.
	Previous     string     `cbor:"4,keyasint,omitempty"`
	PreviousSize uint64     `cbor:"5,keyasint,omitempty"`
	PreviousRoot *tlog.Hash `cbor:"6,keyasint,omitempty"`
	// TornBytes is the length of the torn tail that was cut from the previous boot.
	TornBytes uint64 `cbor:"7,keyasint,omitempty"`
	// Damage is what was found damaged in earlier boots when this one began.
	Damage []Damage `cbor:"8,keyasint,omitempty"`
	// Schema is the version of the schema that the boot's records have; 0 is 1.
	Schema uint64 `cbor:"9,keyasint,omitempty"`
	// Secret is the id of the tenant secret from which the keys of parts derive.
	Secret string `cbor:"10,keyasint,omitempty"`
}

// SchemaVersion is that of the records which this version writes.
const SchemaVersion = 2

// Damage is a place of a journal that no longer holds what it durably held.
type Damage struct {
	Boot   string `cbor:"1,keyasint"`
	File   string `cbor:"2,keyasint"`
	Offset uint64 `cbor:"3,keyasint,omitempty"`
	// From is the first record lost. To is the last one known to have been
	// durable there; 0 when that is not known.
	From   uint64 `cbor:"4,keyasint"`
	To     uint64 `cbor:"5,keyasint,omitempty"`
	Reason string `cbor:"6,keyasint"`
}

// An AdminRecord is what happened beside decisions: shed load, decisions that
// were answered while they could not be recorded, an override.
type AdminRecord struct {
	Event string `cbor:"1,keyasint"`
	Actor string `cbor:"2,keyasint,omitempty"`
	Text  string `cbor:"3,keyasint,omitempty"`
	Count uint64 `cbor:"4,keyasint,omitempty"`
	// From and To are the interval that Count covers, in nanoseconds since 1970.
	From   int64          `cbor:"5,keyasint,omitempty"`
	To     int64          `cbor:"6,keyasint,omitempty"`
	Detail map[string]any `cbor:"7,keyasint,omitempty"`
}

// check reports whether the record is one that this version writes.
func (r *Record) check() error {
	set := 0
	for kind, has := range [...]bool{KindDecision: r.Decision != nil, KindActivation: r.Activation != nil, KindBoot: r.Boot != nil, KindAdmin: r.Admin != nil, KindResult: r.Result != nil} {
		if has {
			set++
			if Kind(kind) != r.Kind {
				return fmt.Errorf("record of kind %s has a %s", r.Kind, Kind(kind))
			}
		}
	}
	if set != 1 {
		return fmt.Errorf("record of kind %s has %d bodies, not one", r.Kind, set)
	}
	if d := r.Decision; d != nil && r.Seq > 0 && d.Instead >= r.Seq {
		return fmt.Errorf("record %d in the place of the later one %d", r.Seq, d.Instead)
	}
	return nil
}

// Body returns the record's encoding without its seq, for AppendLeaf.
func (r *Record) Body() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	unnumbered := *r
	unnumbered.Seq = 0
	return wire.Marshal(&unnumbered)
}

// AppendLeaf appends the leaf bytes of the record with that body and seq to
// dst: the deterministic CBOR of the whole record. Seq is the map's first
// member, so that it can be set without encoding the rest again.
func AppendLeaf(dst, body []byte, seq uint64) []byte {
	dst = append(dst, body[0], body[1])
	switch {
	case seq < 24:
		dst = append(dst, byte(seq))
	case seq <= 0xff:
		dst = append(dst, 0x18, byte(seq))
	case seq <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x19), uint16(seq))
	case seq <= 0xffff_ffff:
		dst = binary.BigEndian.AppendUint32(append(dst, 0x1a), uint32(seq))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x1b), seq)
	}
	return append(dst, body[3:]...)
}
