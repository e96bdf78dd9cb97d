// Package schema holds the parameters of a policy against its JSON Schema
// (draft 2020-12). A schema comes with a package and is checked wherever the
// package's parameters are: by the compiler, when a release is published, and by
// each node before it puts the release in force. So it is bounded like anything
// that comes from outside: its size, its regular expressions, which are RE2, and
// the work of one check. It refers to nothing outside of itself.
//
// This package is the only importer of the JSON Schema library.
package schema

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Bounds of a schema and of one check. A unit of work takes 0.1 to 1 us.
const (
	MaxObjects = 1_000   // JSON objects in a schema
	MaxPattern = 5_000   // instructions of one regular expression
	MaxWork    = 500_000 // units of one check
)

// ErrParams is what every error of Check and CheckParams wraps that is about the
// parameters; ErrSchema is about the schema itself.
var (
	ErrParams = errors.New("the parameters do not satisfy the package's schema")
	ErrSchema = errors.New("the schema of the parameters is not valid")
)

// A Fault is one thing that is wrong, and where.
type Fault struct {
	Pointer string // RFC 6901; "" is the whole document
	Keyword string // that failed, such as "required"
	Reason  string
}

func (f Fault) String() string {
	at := f.Pointer
	if at == "" {
		at = "/"
	}
	if f.Keyword == "" || strings.HasPrefix(f.Reason, f.Keyword+":") {
		return fmt.Sprintf("at %s: %s", at, f.Reason)
	}
	return fmt.Sprintf("at %s: %s: %s", at, f.Keyword, f.Reason)
}

// An Error lists faults, sorted by where they are. It wraps ErrParams or
// ErrSchema.
type Error struct {
	Faults []Fault // at least one
	More   int     // how many there are beside
	is     error
}

func (e *Error) Error() string {
	text := e.is.Error()
	for _, f := range e.Faults {
		text += "; " + f.String()
	}
	if e.More > 0 {
		text += fmt.Sprintf("; and %d more", e.More)
	}
	return text
}

func (e *Error) Unwrap() error { return e.is }

func schemaError(pointer, keyword, format string, args ...any) error {
	return &Error{is: ErrSchema, Faults: []Fault{{Pointer: pointer, Keyword: keyword, Reason: fmt.Sprintf(format, args...)}}}
}

// A Schema is ready to check parameters. It is safe for concurrent use; checks
// wait for one another.
type Schema struct {
	mu    sync.Mutex
	root  *jsonschema.Schema
	meter *meter
}

// CheckParams returns an error unless params, merged already, satisfy the
// package's schema. A package without one takes any.
func CheckParams(pkg *bundle.Package, params map[string]any) error {
	if len(pkg.ParamsSchema) == 0 {
		return nil
	}
	s, err := Compile(pkg.ParamsSchema)
	if err != nil {
		return err
	}
	return s.Check(params)
}

// draft is what a schema may say that it is written in.
const draft = "https://json-schema.org/draft/2020-12/schema"

// base is the address of a schema, which nothing can be fetched from.
const base = "holdfast:///params.schema.json"

// Compile reads a schema. Errors are *Error and wrap ErrSchema; their pointers
// are into the schema.
func Compile(raw []byte) (*Schema, error) {
	if len(raw) > bundle.MaxParamsSchema {
		return nil, schemaError("", "", "%d bytes; at most %d", len(raw), bundle.MaxParamsSchema)
	}
	doc, err := policy.ParseValue(raw)
	if err != nil {
		return nil, schemaError("", "", "%v", err)
	}
	if n := objects(doc); n > MaxObjects {
		return nil, schemaError("", "", "%d objects; at most %d", n, MaxObjects)
	}
	if root, ok := doc.(map[string]any); ok {
		if says, ok := root["$schema"]; ok && says != draft {
			return nil, schemaError("/$schema", "", "must be %q or left out", draft)
		}
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nothing{})
	c.UseRegexpEngine(compilePattern)
	if err := c.AddResource(base, doc); err != nil {
		return nil, schemaError("", "", "%v", err)
	}
	root, err := c.Compile(base)
	if err != nil {
		return nil, compileError(err)
	}
	s := &Schema{root: root, meter: &meter{}}
	return s, s.meter.attach(root)
}

// Check returns an error unless the parameters satisfy the schema. Errors are
// *Error and wrap ErrParams; their pointers are into the parameters.
func (s *Schema) Check(params map[string]any) error {
	if params == nil {
		params = map[string]any{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.left = MaxWork
	err := s.root.Validate(params)
	var invalid *jsonschema.ValidationError
	switch {
	case s.meter.left < 0:
		return &Error{is: ErrParams, Faults: []Fault{{Reason: fmt.Sprintf("to check them takes more than %d units of work; the schema is too entangled", MaxWork)}}}
	case errors.As(err, &invalid):
		return faultsOf(invalid, ErrParams)
	case err != nil:
		return &Error{is: ErrParams, Faults: []Fault{{Reason: err.Error()}}}
	}
	return nil
}

// nothing loads no document: neither files nor the network.
type nothing struct{}

func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("%.200q is another document; put what it says into $defs", url)
}

func objects(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		n = 1
		for _, e := range v {
			n += objects(e)
		}
	case []any:
		for _, e := range v {
			n += objects(e)
		}
	}
	return n
}
