package decide

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// CodeUnknownPath is the reason code of OPA's undefined for a path under which no
// package declares an entry point.
const CodeUnknownPath = "unknown_path"

// A Document is what OPA's data API is answered.
type Document struct {
	// JSON is as the module wrote it; nil is undefined.
	JSON json.RawMessage
	// Failure is why there is no document, "" when the modules answered.
	Failure string
	// Permits is what the document alone says; the point may still deny.
	Permits bool
}

// UnknownPath is the outcome of a path that no package declares.
func UnknownPath() Outcome {
	return Outcome{Decision: policy.Decision{Reasons: []policy.Reason{{
		Code: CodeUnknownPath, Text: "no package in force declares an entry point at or above this path",
	}}}}
}

// PointOf returns the point that OPA's data path names: the one with a package
// that declares the longest entry point at or above the path. Of several it is
// the first by name; nil is none.
func (s *Set) PointOf(path []string) *Point {
	var found *Point
	longest := 0
	for _, p := range s.Points {
		for i := range p.Modules {
			_, rest, ok := p.Modules[i].declares(path)
			if n := len(path) - len(rest); ok && (n > longest || n == longest && p.Name < found.Name) {
				found, longest = p, n
			}
		}
	}
	return found
}

// declares finds the module's entry point at or above the path, and the rest of
// the path.
func (m *Module) declares(path []string) (entrypoint int32, rest []string, ok bool) {
	if m.Entrypoints == nil {
		return 0, nil, false
	}
	escaped := make([]string, len(path))
	for i, step := range path {
		escaped[i] = url.PathEscape(step)
	}
	for n := len(path); n > 0; n-- {
		if entrypoint, ok := m.Entrypoints[strings.Join(escaped[:n], "/")]; ok {
			return entrypoint, path[n:], true
		}
	}
	return 0, nil, false
}

// Data is Evaluate for OPA's data API. The modules that declare the path are
// asked for the document there, the others at their own entry points, and the
// decision is combined of all. The document is undefined when another module
// does not let the asker go on, or when two give different ones.
func (p *Point) Data(req *policy.Request, path []string, now int64) (Outcome, Document) {
	out := Outcome{Runs: make([]Run, len(p.Modules))}
	in := inputs{req: req}
	var docs []*document
	failure, denied := "", false
	for i := range p.Modules {
		m := p.Modules[i]
		entrypoint, rest, ok := m.declares(path)
		if !ok {
			out.Runs[i] = p.run(&m, &in, now)
			denied = denied || !out.Runs[i].Decision.Verdict.Permits()
			continue
		}
		doc := &document{Codec: m.Codec, rest: rest}
		m.Entrypoint, m.Codec = entrypoint, doc
		out.Runs[i] = p.run(&m, &in, now)
		if docs = append(docs, doc); out.Runs[i].Trap != "" {
			failure = failureOf(&out.Runs[i])
		}
	}
	out.Decision = Combine(out.Runs)
	return out, agreed(docs, failure, denied)
}

func failureOf(r *Run) string {
	if r.Detail != "" {
		return r.Detail
	}
	return string(r.Trap)
}

func agreed(docs []*document, failure string, denied bool) Document {
	differ := slices.ContainsFunc(docs, func(d *document) bool { return !bytes.Equal(d.json, docs[0].json) })
	switch {
	case failure != "":
		return Document{Failure: failure}
	case denied || differ || len(docs) == 0:
		return Document{}
	}
	return Document{JSON: docs[0].json, Permits: docs[0].permits}
}

// document is a codec that keeps the document at rest, and decides by it. One
// that is no decision is the value of a denial, whatever its members are called.
type document struct {
	codec.Codec
	rest    []string
	json    json.RawMessage
	permits bool
}

func (d *document) Decode(out []byte) (policy.Decision, error) {
	var err error
	if d.json, err = codec.Document(out, d.rest); err != nil || d.json == nil {
		return policy.Decision{}, err
	}
	set := slices.Concat([]byte(`[{"result":`), d.json, []byte(`}]`))
	decision, err := d.Codec.Decode(set)
	if err != nil {
		value, _, err := codec.Result(set)
		return policy.Decision{Value: value}, err
	}
	d.permits = decision.Verdict.Permits()
	return decision, nil
}
