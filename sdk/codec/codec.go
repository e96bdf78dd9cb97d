// Package codec turns a request into the input that a module understands and
// a module's output into a decision: one codec for each contract of sdk/abi.
// The compiler's vectors, the nodes and replay all use it, so that a policy is
// asked the same way everywhere.
package codec

import (
	"errors"
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// ErrOutput is wrapped by every error about what a module answered.
var ErrOutput = errors.New("module output")

// A Codec speaks one contract. Codecs are stateless and safe for concurrent use.
type Codec interface {
	// Encode returns the module input for a request. The caller must not
	// change it: it may share memory with the request.
	Encode(*policy.Request) ([]byte, error)
	// Decode reads what a module answered. Errors wrap ErrOutput.
	Decode(output []byte) (policy.Decision, error)
	// Init returns what the module is given once, before its first request:
	// the merged parameters and the package's data (JSON, may be empty).
	Init(params map[string]any, data []byte) ([]byte, error)
}

// For returns the codec of a contract.
func For(kind abi.Kind) (Codec, error) {
	switch kind {
	case abi.HoldfastV1:
		return holdfastV1{}, nil
	case abi.OPA1:
		return opa1{}, nil
	}
	return nil, fmt.Errorf("no codec for ABI %q", kind)
}

// holdfastV1 is deterministic CBOR with the text keys of policy.Request.
type holdfastV1 struct{}

func (holdfastV1) Encode(r *policy.Request) ([]byte, error) {
	full, err := r.WithDocument()
	if err != nil {
		return nil, err
	}
	return wire.Marshal(full)
}

func (holdfastV1) Init(params map[string]any, data []byte) ([]byte, error) {
	doc := map[string]any{"params": orEmpty(params)}
	if len(data) > 0 {
		v, err := policy.ParseValue(data)
		if err != nil {
			return nil, fmt.Errorf("package data: %w", err)
		}
		doc["data"] = v
	}
	return wire.Marshal(doc)
}

// answer is what a holdfast_v1 guest writes. The verdict is a word, never a
// number, and a missing one is an error and not the zero value.
type answer struct {
	Verdict     string              `cbor:"verdict"`
	Reasons     []policy.Reason     `cbor:"reasons,omitempty"`
	Obligations []policy.Obligation `cbor:"obligations,omitempty"`
	Value       any                 `cbor:"value,omitempty"`
}

func (holdfastV1) Decode(out []byte) (policy.Decision, error) {
	var a answer
	if err := wire.UnmarshalLoose(out, &a); err != nil {
		return policy.Decision{}, fmt.Errorf("%w: %w", ErrOutput, err)
	}
	verdict, err := policy.ParseVerdict(a.Verdict)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("%w: %w", ErrOutput, err)
	}
	return checked(policy.Decision{Verdict: verdict, Reasons: a.Reasons, Obligations: a.Obligations, Value: a.Value})
}

// checked returns d if its parts agree, else the zero decision and why.
func checked(d policy.Decision) (policy.Decision, error) {
	for _, o := range d.Obligations {
		if o.Type == "" {
			return policy.Decision{}, fmt.Errorf("%w: an obligation without a type", ErrOutput)
		}
	}
	if d.Verdict == policy.Transform && len(d.Obligations) == 0 {
		return policy.Decision{}, fmt.Errorf("%w: verdict transform without an obligation", ErrOutput)
	}
	return d, nil
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
