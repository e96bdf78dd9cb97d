// Package yamlfile reads YAML and JSON files strictly: what a file holds is asked
// for by name and type, and everything else is an error with its place. The
// values come out as policies see them.
package yamlfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Bounds of a YAML file.
const (
	maxYAML     = 4 << 20
	maxExpanded = 8 << 20 // bytes of JSON that one file's values may become through aliases
)

// A Node is a part of a file with its place.
type Node = yaml.Node

// Kinds of nodes.
const (
	Scalar   = yaml.ScalarNode
	Mapping  = yaml.MappingNode
	Sequence = yaml.SequenceNode
)

// A File is one file while it is read. One whose Name ends in .json is JSON.
type File struct {
	Name     string // as errors show it
	expanded int    // bytes of JSON written so far
}

// An Error says what is wrong with a file, and where.
type Error struct {
	File      string // "" for none: the fault is of a whole folder
	Line, Col int    // from 1; 0 when the fault has no place
	Reason    string
}

func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Reason
	case e.Line == 0:
		return e.File + ": " + e.Reason
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Reason)
}

// Fail returns an *Error at the node.
func (f *File) Fail(n *Node, format string, args ...any) error {
	return &Error{File: f.Name, Line: n.Line, Col: n.Column, Reason: fmt.Sprintf(format, args...)}
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// Parse returns the file's only document, or nil when it is empty.
func (f *File) Parse(raw []byte) (root *Node, err error) {
	if len(raw) > maxYAML {
		return nil, &Error{File: f.Name, Reason: fmt.Sprintf("%d bytes, at most %d", len(raw), maxYAML)}
	}
	if strings.HasSuffix(f.Name, ".json") {
		return f.parseJSON(raw)
	}
	defer func() { // the YAML library panics on some malformed input
		if r := recover(); r != nil {
			root, err = nil, &Error{File: f.Name, Reason: "not YAML"}
		}
	}()
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc, second Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, f.syntax(err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &Error{File: f.Name, Reason: "more than one document"}
	}
	return doc.Content[0], nil
}

func (f *File) syntax(err error) error {
	e := &Error{File: f.Name, Reason: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Col, e.Reason = 1, strings.TrimPrefix(err.Error(), m[0])
	}
	return e
}

// Members calls member for each key of a mapping; a key twice is an error.
func (f *File) Members(n *Node, member func(key *Node, value *Node) error) error {
	n = Resolve(n)
	if n.Kind != yaml.MappingNode {
		return f.Fail(n, "must be a mapping, not %s", Kind(n))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := Resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return f.Fail(key, "a key must be a word")
		}
		if seen[key.Value] {
			return f.Fail(key, "%q twice", key.Value)
		}
		seen[key.Value] = true
		if err := member(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Items calls item for each entry of a list.
func (f *File) Items(n *Node, item func(*Node) error) error {
	n = Resolve(n)
	if n.Kind != yaml.SequenceNode {
		return f.Fail(n, "must be a list, not %s", Kind(n))
	}
	for _, e := range n.Content {
		if err := item(e); err != nil {
			return err
		}
	}
	return nil
}

// Text reads a text.
func (f *File) Text(n *Node, into *string) error {
	n = Resolve(n)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return f.Fail(n, "must be text, not %s", Kind(n))
	}
	*into = n.Value
	return nil
}

// Filled is Text that is not empty.
func (f *File) Filled(n *Node, into *string) error {
	if err := f.Text(n, into); err != nil {
		return err
	}
	if *into == "" {
		return f.Fail(Resolve(n), "must not be empty")
	}
	return nil
}

// Texts reads a list of texts; it is never nil without an error.
func (f *File) Texts(n *Node, into *[]string) error {
	*into = []string{}
	return f.Items(n, func(n *Node) error {
		var s string
		err := f.Text(n, &s)
		*into = append(*into, s)
		return err
	})
}

// Value turns a node into a policy value by way of its JSON.
func (f *File) Value(n *Node) (any, error) {
	raw, err := f.JSON(n)
	if err != nil {
		return nil, err
	}
	v, err := policy.ParseValue(raw)
	if err != nil {
		return nil, f.Fail(n, "%v", err)
	}
	return v, nil
}

// Mapping is Value for a mapping; it is never nil without an error.
func (f *File) Mapping(n *Node) (map[string]any, error) {
	v, err := f.Value(n)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, f.Fail(Resolve(n), "must be a mapping, not %s", Kind(Resolve(n)))
	}
	return m, nil
}

// JSON writes a node as JSON; number literals stay as they are where JSON has
// them too.
func (f *File) JSON(n *Node) ([]byte, error) {
	out, err := f.appendJSON(nil, n, 0)
	f.expanded += len(out)
	return out, err
}

func (f *File) appendJSON(out []byte, n *Node, depth int) ([]byte, error) {
	n = Resolve(n)
	if depth > policy.MaxDepth {
		return nil, f.Fail(n, "nested more than %d levels deep", policy.MaxDepth)
	}
	if f.expanded+len(out) > maxExpanded {
		return nil, f.Fail(n, "the file's values, aliases followed, are more than %d bytes", maxExpanded)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return f.appendObject(out, n, depth)
	case yaml.SequenceNode:
		out = append(out, '[')
		for i, e := range n.Content {
			if i > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = f.appendJSON(out, e, depth+1); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	default:
		return f.appendScalar(out, n)
	}
}

func (f *File) appendObject(out []byte, n *Node, depth int) ([]byte, error) {
	out = append(out, '{')
	first := true
	err := f.Members(n, func(key, value *Node) (err error) {
		if !first {
			out = append(out, ',')
		}
		first = false
		name, err := json.Marshal(key.Value)
		if err != nil {
			return f.Fail(key, "%v", err)
		}
		out = append(append(out, name...), ':')
		out, err = f.appendJSON(out, value, depth+1)
		return err
	})
	return append(out, '}'), err
}

func (f *File) appendScalar(out []byte, n *Node) ([]byte, error) {
	var v any = n.Value
	switch n.Tag {
	case "!!null":
		return append(out, "null"...), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return append(out, n.Value...), nil
		}
		fallthrough
	case "!!bool":
		if err := n.Decode(&v); err != nil {
			return nil, f.Fail(n, "%v", err)
		}
	case "!!str", "!!timestamp": // a date is the text that stands there
	default:
		return nil, f.Fail(n, "a %s is not a JSON value", n.Tag)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, f.Fail(n, "%v", err)
	}
	return append(out, raw...), nil
}

// Resolve follows aliases to the node that they stand for.
func Resolve(n *Node) *Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// Kind names what a node is, in the words of the messages.
func Kind(n *Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!null":
		return "nothing"
	}
	return "text"
}

// Marshal writes a value as YAML, two spaces a level.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(v), enc.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
