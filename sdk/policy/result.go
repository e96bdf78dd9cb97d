package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxResultBytes bounds the JSON of a Result, MaxResultObligations its list.
const (
	MaxResultBytes       = 16 << 10
	MaxResultObligations = 64
)

// A Result is what became of a decision, as the workload reports it afterwards.
// It names the decision's record by what the answer said: node, boot and seq.
type Result struct {
	// Node may be left out; it is then the one that is told.
	Node string `json:"node,omitempty"`
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
	// Usage is what a model used.
	Usage *Usage `json:"usage,omitempty"`
	// FinishReason is why the model or tool ended, such as "stop".
	FinishReason string `json:"finish_reason,omitempty"`
	// Error is empty when there was none.
	Error   string    `json:"error,omitempty"`
	EndedAt time.Time `json:"ended_at,omitzero"` // RFC 3339
	// OutputDigest is "sha256:" and 64 hexadecimal digits, of what the model or
	// tool gave; its bytes are not wanted.
	OutputDigest string `json:"output_digest,omitempty"`
	// Served is the model that answered.
	Served      string             `json:"served,omitempty"`
	Obligations []ObligationResult `json:"obligations,omitempty"`
}

// Usage is what a model call used.
type Usage struct {
	InputTokens  uint64 `json:"input_tokens,omitempty"`
	OutputTokens uint64 `json:"output_tokens,omitempty"`
	// CostMicros is in millionths of Currency (ISO 4217).
	CostMicros uint64 `json:"cost_micros,omitempty"`
	Currency   string `json:"currency,omitempty"`
}

// An ObligationResult says whether an obligation was carried out.
type ObligationResult struct {
	ID     string `json:"id,omitempty"`
	Type   string `json:"type,omitempty"`
	Status string `json:"status"` // done, failed or skipped
	Error  string `json:"error,omitempty"`
}

// Reported is the answer to a Result: the name of its own record.
type Reported struct {
	Recorded   bool       `json:"recorded"`
	Durability Durability `json:"durability"` // the class that was met
	Node       string     `json:"node"`
	Boot       string     `json:"boot"`
	Seq        uint64     `json:"seq"`
	Leaf       string     `json:"leaf"` // 64 lower-case hexadecimal digits
}

// ErrUnknownRecord is returned for a result of what is no decision of the node.
var ErrUnknownRecord = errors.New("no such decision")

// ParseResult reads a result from its JSON object: strict JSON as for
// ParseRequest, known members only, at most MaxResultBytes. Boot and seq are
// required. Errors are *SyntaxError.
func ParseResult(body []byte) (*Result, error) {
	p := newParser(body)
	if len(body) > MaxResultBytes {
		return nil, p.at(MaxResultBytes, "", fmt.Sprintf("result of %d bytes; at most %d", len(body), MaxResultBytes))
	}
	r := &Result{}
	if k := p.dec.PeekKind(); k != '{' && k != 0 {
		return nil, p.fail("a result is a JSON object, not %v", k)
	}
	if err := p.object(func(name string) error { return p.resultMember(r, name) }); err != nil {
		return nil, err
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	if r.Boot == "" || r.Seq == 0 {
		return nil, p.at(int64(len(body)), "", `a result names its decision by "boot" and "seq", as the answer had them`)
	}
	return r, nil
}

func (p *parser) resultMember(r *Result, name string) (err error) {
	switch name {
	case "node":
		r.Node, err = p.string()
	case "boot":
		r.Boot, err = p.string()
	case "seq":
		r.Seq, err = p.uint()
	case "usage":
		r.Usage, err = p.usage()
	case "finish_reason":
		r.FinishReason, err = p.string()
	case "error":
		r.Error, err = p.string()
	case "ended_at":
		r.EndedAt, err = p.time()
	case "output_digest":
		r.OutputDigest, err = p.digest()
	case "served":
		r.Served, err = p.string()
	case "obligations":
		err = p.list(func() error {
			if len(r.Obligations) == MaxResultObligations {
				return p.fail("more than %d obligations", MaxResultObligations)
			}
			o, err := p.obligationResult()
			r.Obligations = append(r.Obligations, o)
			return err
		})
	default:
		err = p.unknown(name)
	}
	return err
}

func (p *parser) usage() (*Usage, error) {
	u := &Usage{}
	return u, p.members(func(name string) (err error) {
		switch name {
		case "input_tokens":
			u.InputTokens, err = p.uint()
		case "output_tokens":
			u.OutputTokens, err = p.uint()
		case "cost_micros":
			u.CostMicros, err = p.uint()
		case "currency":
			if u.Currency, err = p.string(); err == nil && (len(u.Currency) != 3 || strings.Trim(u.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
				err = p.fail("must be a currency of ISO 4217, such as EUR")
			}
		default:
			err = p.unknown(name)
		}
		return err
	})
}

func (p *parser) obligationResult() (o ObligationResult, err error) {
	err = p.members(func(name string) (err error) {
		switch name {
		case "id":
			o.ID, err = p.string()
		case "type":
			o.Type, err = p.string()
		case "status":
			if o.Status, err = p.string(); err == nil && o.Status != "done" && o.Status != "failed" && o.Status != "skipped" {
				err = p.fail("must be done, failed or skipped")
			}
		case "error":
			o.Error, err = p.string()
		default:
			err = p.unknown(name)
		}
		return err
	})
	if err == nil && (o.Status == "" || o.ID == "" && o.Type == "") {
		err = p.fail("an obligation's result has a status, and the obligation's id or type")
	}
	return o, err
}

func (p *parser) uint() (uint64, error) {
	if k := p.dec.PeekKind(); k != '0' && k != 0 {
		return 0, p.mistyped("a number")
	}
	v, err := p.value()
	n, ok := v.(int64)
	if err == nil && (!ok || n < 0) {
		err = p.fail("must be a whole number, not negative")
	}
	return uint64(max(n, 0)), err
}

func (p *parser) time() (t time.Time, err error) {
	s, err := p.string()
	if err != nil {
		return t, err
	}
	if t, err = time.Parse(time.RFC3339Nano, s); err != nil || t.Year() < 1970 || t.Year() > 2200 {
		return time.Time{}, p.fail("must be a time as RFC 3339 has it, such as 2026-01-02T03:04:05Z")
	}
	return t, nil
}

func (p *parser) digest() (string, error) {
	s, err := p.string()
	digits, ok := strings.CutPrefix(s, "sha256:")
	if err == nil && (!ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "") {
		err = p.fail(`must be "sha256:" and 64 lower-case hexadecimal digits`)
	}
	return s, err
}
