package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// The decision points that Holdfast names; users add their own.
const (
	PointPreModel    = "llm.pre_model"
	PointPostModel   = "llm.post_model"
	PointPreCall     = "tool.pre_call"
	PointPostCall    = "tool.post_call"
	PointInput       = "input"
	PointRetrieval   = "retrieval"
	PointOutput      = "output"
	PointDelegate    = "delegate"
	PointMemoryWrite = "memory.write"
	PointAgentStart  = "agent.start"
	PointAgentStop   = "agent.stop"
	PointAdmin       = "admin"
	PointCustom      = "custom"
)

// Points returns the decision points that Holdfast names.
func Points() []string {
	return []string{
		PointPreModel, PointPostModel, PointPreCall, PointPostCall, PointInput, PointRetrieval, PointOutput, PointDelegate,
		PointMemoryWrite, PointAgentStart, PointAgentStop, PointAdmin, PointCustom,
	}
}

// An Entity is AuthZEN's subject or resource.
type Entity struct {
	Type       string         `json:"type" cbor:"type"`
	ID         string         `json:"id" cbor:"id"`
	Properties map[string]any `json:"properties,omitempty" cbor:"properties,omitempty"`
}

// An Action is AuthZEN's action.
type Action struct {
	Name       string         `json:"name" cbor:"name"`
	Properties map[string]any `json:"properties,omitempty" cbor:"properties,omitempty"`
}

// A Signal is what a detector said of the request. Policies decide on signals;
// a signal decides nothing by itself.
type Signal struct {
	Detector string  `json:"detector" cbor:"detector"`
	Version  string  `json:"version,omitempty" cbor:"version,omitempty"`
	Score    float64 `json:"score" cbor:"score"`
	Text     string  `json:"text,omitempty" cbor:"text,omitempty"`
}

// A Request is what a workload asks at a decision point.
type Request struct {
	Point    string         `json:"point" cbor:"point"`
	ID       string         `json:"id,omitempty" cbor:"id,omitempty"`
	Subject  Entity         `json:"subject" cbor:"subject"`
	Action   Action         `json:"action" cbor:"action"`
	Resource Entity         `json:"resource" cbor:"resource"`
	Context  map[string]any `json:"context,omitempty" cbor:"context,omitempty"`
	// Supported lists the types of obligations that the asker can perform
	// (AuthZEN's obligations profile).
	Supported []string `json:"supported_obligations,omitempty" cbor:"supported_obligations,omitempty"`
	Signals   []Signal `json:"signals,omitempty" cbor:"signals,omitempty"`
	// Document is a bare input document, as OPA's clients send it. With one,
	// subject, action and resource may be empty. ParseRequest may leave it to
	// WithDocument.
	Document any `json:"document,omitempty" cbor:"document,omitempty"`
	// Bare says that the document is the whole input of a Rego policy even when
	// there is none: then the input is undefined, as for OPA. A bare request
	// needs no subject, action or resource.
	Bare bool `json:"bare,omitempty" cbor:"-"`

	// source is the JSON object that the request was read from, so that number
	// literals reach Rego and the record as they were written.
	source []byte
	named  bool // the source has a member "point" of its own
	// document is the part of source that Document was read from.
	document []byte
}

// ParseRequest reads a request for point from its JSON object: strict JSON (see
// ParseValue), known members only, each of its type, at most MaxRequestBytes.
// Subject, action and resource are required unless there is a document. A
// member "point" may be left out and must not name another point. Errors are
// *SyntaxError.
func ParseRequest(point string, body []byte) (*Request, error) {
	if r, ok := parseBare(point, body); ok {
		return r, nil
	}
	return parseRequest(point, body)
}

func parseRequest(point string, body []byte) (*Request, error) {
	p := newParser(body)
	if len(body) > MaxRequestBytes {
		return nil, p.at(MaxRequestBytes, "", fmt.Sprintf("request of %d bytes; at most %d", len(body), MaxRequestBytes))
	}
	r := &Request{Point: point, source: body}
	seen := map[string]bool{}
	if k := p.dec.PeekKind(); k != '{' && k != 0 {
		return nil, p.fail("a request is a JSON object, not %v", k)
	}
	err := p.object(func(name string) error {
		seen[name] = true
		return p.member(r, name)
	})
	if err != nil {
		return nil, err
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	if r.Bare {
		return r, nil
	}
	return r, p.required(seen)
}

func (p *parser) member(r *Request, name string) (err error) {
	switch name {
	case "point":
		var named string
		r.named = true
		if named, err = p.string(); err == nil && named != r.Point {
			err = p.fail("point %q in the request, but %q was asked", named, r.Point)
		}
	case "id":
		r.ID, err = p.string()
	case "subject":
		r.Subject, err = p.entity()
	case "resource":
		r.Resource, err = p.entity()
	case "action":
		r.Action, err = p.action()
	case "context":
		r.Context, err = p.properties()
	case "supported_obligations":
		err = p.list(func() error {
			s, err := p.string()
			r.Supported = append(r.Supported, s)
			return err
		})
	case "signals":
		err = p.list(func() error {
			s, err := p.signal()
			r.Signals = append(r.Signals, s)
			return err
		})
	case "bare":
		r.Bare, err = p.bool()
	case "document":
		start := p.dec.InputOffset()
		r.Document, err = p.value()
		r.document = bytes.TrimLeft(p.doc[start:p.dec.InputOffset()], ": \t\r\n")
	default:
		err = p.fail("unknown member %.60q; a request has subject, action, resource and context, or an input of any shape in \"document\"", name)
	}
	return err
}

func (p *parser) required(seen map[string]bool) error {
	if seen["document"] {
		return nil
	}
	for _, name := range []string{"subject", "action", "resource"} {
		if !seen[name] {
			return p.at(int64(len(p.doc)), "", fmt.Sprintf("%q is missing: a request has subject, action and resource, or a document", name))
		}
	}
	return nil
}

func (p *parser) entity() (e Entity, err error) {
	var hasType, hasID bool
	err = p.members(func(name string) (err error) {
		switch name {
		case "type":
			e.Type, err = p.string()
			hasType = true
		case "id":
			e.ID, err = p.string()
			hasID = true
		case "properties":
			e.Properties, err = p.properties()
		default:
			err = p.unknown(name)
		}
		return err
	})
	if err == nil && !(hasType && hasID) {
		err = p.fail("an entity has a type and an id")
	}
	return e, err
}

func (p *parser) action() (a Action, err error) {
	err = p.members(func(name string) (err error) {
		switch name {
		case "name":
			a.Name, err = p.string()
		case "properties":
			a.Properties, err = p.properties()
		default:
			err = p.unknown(name)
		}
		return err
	})
	if err == nil && a.Name == "" {
		err = p.fail("an action has a name")
	}
	return a, err
}

func (p *parser) signal() (s Signal, err error) {
	err = p.members(func(name string) (err error) {
		switch name {
		case "detector":
			s.Detector, err = p.string()
		case "version":
			s.Version, err = p.string()
		case "text":
			s.Text, err = p.string()
		case "score":
			s.Score, err = p.float()
		default:
			err = p.unknown(name)
		}
		return err
	})
	if err == nil && s.Detector == "" {
		err = p.fail("a signal names its detector")
	}
	return s, err
}

func (p *parser) properties() (map[string]any, error) {
	m := map[string]any{}
	return m, p.members(func(name string) (err error) {
		m[name], err = p.value()
		return err
	})
}

// members reads an object, and says so when it is none.
func (p *parser) members(member func(name string) error) error {
	if k := p.dec.PeekKind(); k != '{' && k != 0 {
		return p.mistyped("an object")
	}
	return p.object(member)
}

func (p *parser) list(element func() error) error {
	if k := p.dec.PeekKind(); k != '[' && k != 0 {
		return p.mistyped("a list")
	}
	return p.array(element)
}

func (p *parser) string() (string, error) {
	if k := p.dec.PeekKind(); k != '"' && k != 0 {
		return "", p.mistyped("a string")
	}
	tok, err := p.dec.ReadToken()
	if err != nil {
		return "", p.syntax(err)
	}
	return tok.String(), nil
}

func (p *parser) bool() (bool, error) {
	if k := p.dec.PeekKind(); k != 't' && k != 'f' && k != 0 {
		return false, p.mistyped("a boolean")
	}
	tok, err := p.dec.ReadToken()
	if err != nil {
		return false, p.syntax(err)
	}
	return tok.Bool(), nil
}

func (p *parser) float() (float64, error) {
	if k := p.dec.PeekKind(); k != '0' && k != 0 {
		return 0, p.mistyped("a number")
	}
	v, err := p.value()
	if n, ok := v.(int64); ok {
		return float64(n), err
	}
	f, _ := v.(float64)
	return f, err
}

// mistyped reads past the offending token, so that the error points at it.
func (p *parser) mistyped(want string) error {
	tok, err := p.dec.ReadToken()
	if err != nil {
		return p.syntax(err)
	}
	return p.fail("must be %s, not %v", want, tok.Kind())
}

func (p *parser) unknown(name string) error {
	return p.fail("unknown member %.60q", name)
}

// JSON returns the request as a JSON object with its point. A request that was
// read from JSON keeps its text, number literals included.
func (r *Request) JSON() ([]byte, error) {
	if r.source == nil {
		return json.Marshal(r)
	}
	if r.named {
		return r.source, nil
	}
	point, err := json.Marshal(r.Point)
	if err != nil {
		return nil, err
	}
	body := bytes.TrimLeft(r.source, " \t\r\n")[1:]
	out := make([]byte, 0, len(body)+len(point)+16)
	out = append(append(out, `{"point":`...), point...)
	if bytes.TrimLeft(body, " \t\r\n")[0] != '}' {
		out = append(out, ',')
	}
	return append(out, body...), nil
}

// ContextNode is the member of a request's context in which a node tells
// policies of itself: {"staleness": "aging" or "stale", "age_s": seconds}. It is
// there only while the node is not fresh. Askers must not write it. A Rego policy
// that is asked with a bare document sees the document alone.
const ContextNode = "holdfast"

// ClaimsNode reports whether the request has the node's member of the context.
func (r *Request) ClaimsNode() bool {
	_, ok := r.Context[ContextNode]
	return ok
}

// WithNode returns the request with what a node says of itself in its context,
// in the place of whatever was there. Number literals are kept.
func (r *Request) WithNode(says map[string]any) (*Request, error) {
	out := *r
	if out.Context = maps.Clone(r.Context); out.Context == nil {
		out.Context = map[string]any{}
	}
	out.Context[ContextNode] = says
	if r.source == nil {
		return &out, nil
	}
	var err error
	out.source, err = withMember(r.source, "context", func(context json.RawMessage) (any, error) {
		if context == nil {
			context = json.RawMessage("{}")
		}
		b, err := withMember(context, ContextNode, func(json.RawMessage) (any, error) { return says, nil })
		return json.RawMessage(b), err
	})
	return &out, err
}

// withMember replaces one member of a JSON object; value is given what was there.
func withMember(object []byte, name string, value func(json.RawMessage) (any, error)) ([]byte, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	v, err := value(members[name])
	if err != nil {
		return nil, err
	}
	if members[name], err = json.Marshal(v); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// Size is the length of the request's JSON as it was read, in bytes; 0 when it
// was not read from JSON.
func (r *Request) Size() int { return len(r.source) }

// DocumentJSON returns the bare input document as JSON, number literals
// included, and whether there is one.
func (r *Request) DocumentJSON() (doc []byte, ok bool, err error) {
	switch {
	case r.document != nil:
		return r.document, true, nil
	case r.Document != nil:
		doc, err = json.Marshal(r.Document)
		return doc, true, err
	}
	return nil, false, nil
}

// Performs reports whether the asker said that it can perform obligations of
// type t.
func (r *Request) Performs(t string) bool { return slices.Contains(r.Supported, t) }

// ErrUnknownPoint is wrapped when a request asks at a point that the release in
// force does not have. It is no decision.
var ErrUnknownPoint = errors.New("unknown decision point")

// A NoDocumentError says why the policies that OPA's data API asked gave no
// document. That is a recorded decision all the same.
type NoDocumentError struct{ Reason string }

func (e *NoDocumentError) Error() string { return "the policies gave no document: " + e.Reason }
