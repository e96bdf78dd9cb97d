package compiler

import (
	"errors"
	"io/fs"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// readVectors reads the files that holdfast.yaml names, or else vectors.yaml
// and vectors.json where they are.
func readVectors(fsys fs.FS, c *config) ([]bundle.Vector, error) {
	files := c.vectors
	if files == nil {
		for _, name := range c.vectorFiles() {
			if _, err := fs.Stat(fsys, name); err == nil {
				files = append(files, name)
			}
		}
	}
	point := policy.PointCustom
	if len(c.points) > 0 {
		point = c.points[0]
	}
	var all []bundle.Vector
	for _, name := range files {
		raw, err := readFile(fsys, name)
		if err != nil {
			return nil, err
		}
		list, err := ParseVectors(name, point, raw)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// vectorFiles are where vectors may be.
func (c *config) vectorFiles() []string {
	if c.vectors != nil {
		return c.vectors
	}
	return []string{"vectors.yaml", "vectors.json"}
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	raw, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil, &InputError{File: name, Reason: "holdfast.yaml names this file of vectors, and it is not there"}
	}
	return raw, err
}

// ParseVectors reads a file of golden vectors, YAML or JSON: a list of
//
//	name:    what it shows
//	point:   the decision point; default is the argument point
//	request: as policy.ParseRequest takes it
//	params:  overlay the package's parameters
//	expect:  {verdict, codes, obligations, value} or {trap}
//
// Codes and obligations are all that must come, in order; none when left out.
// Errors are *InputError with file, line and column.
func ParseVectors(file, point string, raw []byte) ([]bundle.Vector, error) {
	d := &document{file: file}
	root, err := d.parse(raw)
	if err != nil || root == nil {
		return nil, err
	}
	var list []bundle.Vector
	names := map[string]bool{}
	err = d.items(root, func(n *yaml.Node) error {
		v, err := d.vector(n, point)
		if err != nil {
			return err
		}
		if names[v.Name] {
			return d.fail(n, "a vector %q twice", v.Name)
		}
		names[v.Name] = true
		list = append(list, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (d *document) vector(n *yaml.Node, point string) (bundle.Vector, error) {
	v := bundle.Vector{Point: point}
	var request, expect *yaml.Node
	err := d.members(n, func(key, value *yaml.Node) (err error) {
		switch key.Value {
		case "name":
			return d.text(value, &v.Name)
		case "point":
			return d.text(value, &v.Point)
		case "request":
			request = value
		case "expect":
			expect = value
		case "params":
			c := config{}
			err = c.paramValues(d, value)
			v.Params = c.params
		default:
			err = d.fail(key, "unknown key %q: want name, point, request, params or expect", key.Value)
		}
		return err
	})
	switch {
	case err != nil:
		return v, err
	case v.Name == "" || request == nil || expect == nil:
		return v, d.fail(n, "a vector has a name, a request and an expect")
	}
	if err := d.request(request, &v); err != nil {
		return v, err
	}
	return v, d.expect(expect, &v.Expect)
}

func (d *document) request(n *yaml.Node, v *bundle.Vector) (err error) {
	if v.Request, err = d.json(n); err != nil {
		return err
	}
	if err := bundle.CheckPoint(v.Point); err != nil {
		return d.fail(n, "%v", err)
	}
	_, err = policy.ParseRequest(v.Point, v.Request)
	var se *policy.SyntaxError
	switch {
	case errors.As(err, &se) && se.Pointer != "":
		return d.fail(resolve(n), "request, at %s: %s", se.Pointer, se.Reason)
	case errors.As(err, &se):
		return d.fail(resolve(n), "request: %s", se.Reason)
	}
	return err
}

func (d *document) expect(n *yaml.Node, e *bundle.Expect) error {
	verdict := false
	err := d.members(n, func(key, value *yaml.Node) (err error) {
		switch key.Value {
		case "verdict":
			verdict = true
			err = d.verdict(value, &e.Verdict)
		case "codes":
			err = d.texts(value, &e.Codes)
		case "obligations":
			err = d.texts(value, &e.Obligations)
		case "value":
			e.HasValue = true
			e.Value, err = d.value(value)
		case "trap":
			err = d.trap(value, &e.Trap)
		default:
			err = d.fail(key, "unknown key %q: want verdict, codes, obligations, value or trap", key.Value)
		}
		return err
	})
	if err == nil && verdict == (e.Trap != "") {
		err = d.fail(resolve(n), "expect either a verdict or a trap")
	}
	return err
}

func (d *document) verdict(n *yaml.Node, into *policy.Verdict) error {
	var word string
	if err := d.text(n, &word); err != nil {
		return err
	}
	v, err := policy.ParseVerdict(word)
	if err != nil {
		return d.fail(n, "%v", err)
	}
	*into = v
	return nil
}

func (d *document) trap(n *yaml.Node, into *string) error {
	if err := d.text(n, into); err != nil {
		return err
	}
	known := []abi.TrapCode{
		abi.TrapFuel, abi.TrapDepth, abi.TrapMemory, abi.TrapUnreachable, abi.TrapArithmetic, abi.TrapCall, abi.TrapAbort,
		abi.TrapRefused, abi.TrapInput, abi.TrapOutput, abi.TrapBuiltin,
	}
	if !slices.Contains(known, abi.TrapCode(*into)) {
		return d.fail(n, "unknown trap %q: want one of %q", *into, known)
	}
	return nil
}
