package audit

import (
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Replay says what a replay of a decision can expect of its parts. That they
// were erased is not in the record, which never changes: they are not there.
type Replay uint8

const (
	// ReplayExact: the parts hold the bytes that were decided on.
	ReplayExact Replay = iota
	// ReplayMasked: members of the request were masked before the first write.
	ReplayMasked
)

var replayNames = [...]string{"exact", "masked"}

func (r Replay) String() string {
	if int(r) < len(replayNames) {
		return replayNames[r]
	}
	return "invalid"
}

// MarshalText writes exact or masked.
func (r Replay) MarshalText() ([]byte, error) {
	if int(r) >= len(replayNames) {
		return nil, fmt.Errorf("replay %d", r)
	}
	return []byte(replayNames[r]), nil
}

// UnmarshalText reads exact or masked.
func (r *Replay) UnmarshalText(b []byte) error {
	for i, name := range replayNames {
		if name == string(b) {
			*r = Replay(i)
			return nil
		}
	}
	return fmt.Errorf("replay %.20q: exact or masked", b)
}

// Said is what a request states about itself beyond AuthZEN's four members, so
// that records can be found and judged by it. Nobody has verified it. Every
// member is optional, and masked as the request is.
type Said struct {
	Agent      *Agent   `cbor:"1,keyasint,omitempty"`
	OnBehalfOf *Entity  `cbor:"2,keyasint,omitempty"` // the human
	Delegation []Hop    `cbor:"3,keyasint,omitempty"` // from the first delegator on
	Client     *Client  `cbor:"4,keyasint,omitempty"`
	Model      *Model   `cbor:"5,keyasint,omitempty"`
	Tool       *Tool    `cbor:"6,keyasint,omitempty"`
	UseCase    string   `cbor:"7,keyasint,omitempty"` // id in the inventory
	RiskClass  string   `cbor:"8,keyasint,omitempty"` // prohibited, high, limited or minimal
	Purpose    string   `cbor:"9,keyasint,omitempty"`
	DataOf     []string `cbor:"10,keyasint,omitempty"` // categories of data subjects
	// Classification and Region are the resource's.
	Classification string `cbor:"11,keyasint,omitempty"`
	Region         string `cbor:"12,keyasint,omitempty"`
	// Session, Batch and Idempotency correlate requests.
	Session     string `cbor:"13,keyasint,omitempty"`
	Batch       string `cbor:"14,keyasint,omitempty"`
	Idempotency string `cbor:"15,keyasint,omitempty"`
	// UseStarted is when the use began of which this is a part (EU AI Act,
	// article 12(3)(a)), in nanoseconds since 1970.
	UseStarted int64          `cbor:"16,keyasint,omitempty"`
	Approval   *Approval      `cbor:"17,keyasint,omitempty"`
	Signals    []SignalRecord `cbor:"18,keyasint,omitempty"`
	AuthMethod string         `cbor:"19,keyasint,omitempty"` // how the subject was authenticated
	ACR        string         `cbor:"20,keyasint,omitempty"` // its authentication context class (OpenID Connect)
}

// An Agent is the AI agent that acts.
type Agent struct {
	ID      string `cbor:"1,keyasint"`
	Version string `cbor:"2,keyasint,omitempty"`
	Digest  string `cbor:"3,keyasint,omitempty"`
}

// A Hop is one delegation.
type Hop struct {
	Agent string `cbor:"1,keyasint"`
	Scope string `cbor:"2,keyasint,omitempty"`
	Depth uint64 `cbor:"3,keyasint,omitempty"`
}

// A Client is where a request came from.
type Client struct {
	IP  string `cbor:"1,keyasint,omitempty"`
	App string `cbor:"2,keyasint,omitempty"`
}

// A Model is the model that is asked, or answered.
type Model struct {
	Requested string `cbor:"1,keyasint,omitempty"`
	Served    string `cbor:"2,keyasint,omitempty"`
	Provider  string `cbor:"3,keyasint,omitempty"`
	Version   string `cbor:"4,keyasint,omitempty"`
	Region    string `cbor:"5,keyasint,omitempty"`
}

// A Tool is the tool that is called.
type Tool struct {
	Server string `cbor:"1,keyasint,omitempty"`
	Name   string `cbor:"2,keyasint,omitempty"`
	// Definition is the digest of the tool's declaration.
	Definition string `cbor:"3,keyasint,omitempty"`
}

// An Approval is the human approval that a request shows.
type Approval struct {
	Request   string     `cbor:"1,keyasint,omitempty"`
	Required  uint64     `cbor:"2,keyasint,omitempty"`
	Approvers []Approver `cbor:"3,keyasint,omitempty"`
	// Expires is in nanoseconds since 1970.
	Expires   int64 `cbor:"4,keyasint,omitempty"`
	SingleUse bool  `cbor:"5,keyasint,omitempty"`
}

// An Approver is one natural person's word.
type Approver struct {
	ID       string `cbor:"1,keyasint"`
	Method   string `cbor:"2,keyasint,omitempty"`
	At       int64  `cbor:"3,keyasint,omitempty"` // nanoseconds since 1970
	Decision string `cbor:"4,keyasint,omitempty"`
	// Args is the digest of the arguments that were shown.
	Args string `cbor:"5,keyasint,omitempty"`
}

// A SignalRecord is what a detector said, without its text, which is in the
// request.
type SignalRecord struct {
	Detector string  `cbor:"1,keyasint"`
	Version  string  `cbor:"2,keyasint,omitempty"`
	Score    float64 `cbor:"3,keyasint,omitempty"`
}

// A ResultRecord is what became of a decision, as the workload reports it: the
// second record of a decision.
type ResultRecord struct {
	// Boot and Seq name the decision's record; Boot is empty for this boot.
	Boot string `cbor:"1,keyasint,omitempty"`
	Seq  uint64 `cbor:"2,keyasint"`
	// Usage is what a model used.
	Usage *Usage `cbor:"3,keyasint,omitempty"`
	// Finish is why the model or tool ended.
	Finish string `cbor:"4,keyasint,omitempty"`
	Error  string `cbor:"5,keyasint,omitempty"`
	// Ended is in nanoseconds since 1970.
	Ended int64 `cbor:"6,keyasint,omitempty"`
	// Output is the tool's or model's result; its bytes are never recorded.
	Output *wire.Digest `cbor:"7,keyasint,omitempty"`
	// Obligations say what became of each.
	Obligations []ObligationResult `cbor:"8,keyasint,omitempty"`
	// Served is the model that answered.
	Served string `cbor:"9,keyasint,omitempty"`
}

// Usage is what a model call used.
type Usage struct {
	Input  uint64 `cbor:"1,keyasint,omitempty"` // tokens
	Output uint64 `cbor:"2,keyasint,omitempty"` // tokens
	// Cost is in millionths of Currency (ISO 4217).
	Cost     uint64 `cbor:"3,keyasint,omitempty"`
	Currency string `cbor:"4,keyasint,omitempty"`
}

// An ObligationResult says whether an obligation was carried out.
type ObligationResult struct {
	ID     string `cbor:"1,keyasint,omitempty"`
	Type   string `cbor:"2,keyasint,omitempty"`
	Status string `cbor:"3,keyasint"` // done, failed or skipped
	Error  string `cbor:"4,keyasint,omitempty"`
}
