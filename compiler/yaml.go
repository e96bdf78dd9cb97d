package compiler

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Bounds of a YAML file.
const (
	maxYAML     = 4 << 20
	maxExpanded = 8 << 20 // bytes of JSON that one file's values may become through aliases
)

// A document is one YAML (or JSON) file, read strictly: what it holds is asked
// for by name and type, and everything else is an error with its place.
type document struct {
	file     string
	expanded int // bytes of JSON written so far
}

func (d *document) fail(n *yaml.Node, format string, args ...any) error {
	return &InputError{File: d.file, Line: n.Line, Col: n.Column, Reason: fmt.Sprintf(format, args...)}
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parse returns the file's only document, or nil when it is empty.
func (d *document) parse(raw []byte) (root *yaml.Node, err error) {
	if len(raw) > maxYAML {
		return nil, &InputError{File: d.file, Reason: fmt.Sprintf("%d bytes, at most %d", len(raw), maxYAML)}
	}
	if strings.HasSuffix(d.file, ".json") {
		return d.parseJSON(raw)
	}
	defer func() { // the YAML library panics on some malformed input
		if r := recover(); r != nil {
			root, err = nil, &InputError{File: d.file, Reason: "not YAML"}
		}
	}()
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, d.syntax(err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &InputError{File: d.file, Reason: "more than one document"}
	}
	return doc.Content[0], nil
}

func (d *document) syntax(err error) error {
	e := &InputError{File: d.file, Reason: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Col, e.Reason = 1, strings.TrimPrefix(err.Error(), m[0])
	}
	return e
}

// members calls member for each key of a mapping; a key twice is an error.
func (d *document) members(n *yaml.Node, member func(key *yaml.Node, value *yaml.Node) error) error {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return d.fail(n, "must be a mapping, not %s", kind(n))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return d.fail(key, "a key must be a word")
		}
		if seen[key.Value] {
			return d.fail(key, "%q twice", key.Value)
		}
		seen[key.Value] = true
		if err := member(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) items(n *yaml.Node, item func(*yaml.Node) error) error {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return d.fail(n, "must be a list, not %s", kind(n))
	}
	for _, e := range n.Content {
		if err := item(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) text(n *yaml.Node, into *string) error {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return d.fail(n, "must be text, not %s", kind(n))
	}
	*into = n.Value
	return nil
}

// filled is text that is not empty.
func (d *document) filled(n *yaml.Node, into *string) error {
	if err := d.text(n, into); err != nil {
		return err
	}
	if *into == "" {
		return d.fail(resolve(n), "must not be empty")
	}
	return nil
}

// fuel reads a number of units.
func (d *document) fuel(n *yaml.Node, into *uint64) error {
	n = resolve(n)
	u, err := strconv.ParseUint(n.Value, 10, 64)
	if n.Tag != "!!int" || err != nil || u == 0 || u > abi.MaxFuel {
		return d.fail(n, "fuel is a number of units from 1 to %d", abi.MaxFuel)
	}
	*into = u
	return nil
}

func (d *document) texts(n *yaml.Node, into *[]string) error {
	*into = []string{}
	return d.items(n, func(n *yaml.Node) error {
		var s string
		err := d.text(n, &s)
		*into = append(*into, s)
		return err
	})
}

// value turns a node into a policy value by way of its JSON.
func (d *document) value(n *yaml.Node) (any, error) {
	raw, err := d.json(n)
	if err != nil {
		return nil, err
	}
	v, err := policy.ParseValue(raw)
	if err != nil {
		return nil, d.fail(n, "%v", err)
	}
	return v, nil
}

// mapping is value for a mapping; it is never nil without an error.
func (d *document) mapping(n *yaml.Node) (map[string]any, error) {
	v, err := d.value(n)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, d.fail(resolve(n), "must be a mapping, not %s", kind(resolve(n)))
	}
	return m, nil
}

// json writes a node as JSON; number literals stay as they are where JSON has
// them too.
func (d *document) json(n *yaml.Node) ([]byte, error) {
	out, err := d.appendJSON(nil, n, 0)
	d.expanded += len(out)
	return out, err
}

func (d *document) appendJSON(out []byte, n *yaml.Node, depth int) ([]byte, error) {
	n = resolve(n)
	if depth > policy.MaxDepth {
		return nil, d.fail(n, "nested more than %d levels deep", policy.MaxDepth)
	}
	if d.expanded+len(out) > maxExpanded {
		return nil, d.fail(n, "the file's values, aliases followed, are more than %d bytes", maxExpanded)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.appendObject(out, n, depth)
	case yaml.SequenceNode:
		out = append(out, '[')
		for i, e := range n.Content {
			if i > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = d.appendJSON(out, e, depth+1); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	default:
		return d.appendScalar(out, n)
	}
}

func (d *document) appendObject(out []byte, n *yaml.Node, depth int) ([]byte, error) {
	out = append(out, '{')
	first := true
	err := d.members(n, func(key, value *yaml.Node) (err error) {
		if !first {
			out = append(out, ',')
		}
		first = false
		name, err := json.Marshal(key.Value)
		if err != nil {
			return d.fail(key, "%v", err)
		}
		out = append(append(out, name...), ':')
		out, err = d.appendJSON(out, value, depth+1)
		return err
	})
	return append(out, '}'), err
}

func (d *document) appendScalar(out []byte, n *yaml.Node) ([]byte, error) {
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
			return nil, d.fail(n, "%v", err)
		}
	case "!!str", "!!timestamp": // a date is the text that stands there
	default:
		return nil, d.fail(n, "a %s is not a JSON value", n.Tag)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, d.fail(n, "%v", err)
	}
	return append(out, raw...), nil
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// kind names what a node is, in the words of the messages.
func kind(n *yaml.Node) string {
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
