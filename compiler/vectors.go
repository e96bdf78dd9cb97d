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
func readVectors(fsys fs.FS, c *config) ([]placed, error) {
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
	var all []placed
	for _, name := range files {
		raw, err := readFile(fsys, name)
		if err != nil {
			return nil, err
		}
		list, err := parseVectors(name, point, raw)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// A placed vector knows where its parameters were written, or else it itself.
type placed struct {
	vector bundle.Vector
	place  place
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
//	expect:  {verdict, codes or reasons, obligations, value, fuel_max} or {trap}
//
// Codes are the codes of the reasons; reasons are {code, text}, where a text that
// is left out may be any. An obligation is its type, or {type, id, properties},
// where what is left out may be anything. Both lists are all that must come, in
// order; none when left out. Errors are *InputError with file, line and column.
func ParseVectors(file, point string, raw []byte) ([]bundle.Vector, error) {
	list, err := parseVectors(file, point, raw)
	return vectorsOf(list), err
}

func vectorsOf(list []placed) (out []bundle.Vector) {
	for _, v := range list {
		out = append(out, v.vector)
	}
	return out
}

func parseVectors(file, point string, raw []byte) ([]placed, error) {
	d := &document{file: file}
	root, err := d.parse(raw)
	if err != nil || root == nil {
		return nil, err
	}
	var list []placed
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
		at := resolve(n)
		if params := child(at, "params"); params != nil {
			at = params
		}
		list = append(list, placed{v, place{file, at}})
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
			v.Params, err = d.mapping(value)
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
	seen := map[string]*yaml.Node{}
	err := d.members(n, func(key, value *yaml.Node) (err error) {
		seen[key.Value] = key
		switch key.Value {
		case "verdict":
			err = d.verdict(value, &e.Verdict)
		case "codes":
			err = d.texts(value, &e.Codes)
		case "reasons":
			err = d.reasons(value, e)
		case "obligations":
			err = d.obligations(value, e)
		case "value":
			e.HasValue = true
			e.Value, err = d.value(value)
		case "fuel_max":
			err = d.fuel(value, &e.FuelMax)
		case "trap":
			err = d.trap(value, &e.Trap)
		default:
			err = d.fail(key, "unknown key %q: want verdict, codes, reasons, obligations, value, fuel_max or trap", key.Value)
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.expectation(n, seen)
}

// expectation wants one form of each thing that can be said in two.
func (d *document) expectation(n *yaml.Node, seen map[string]*yaml.Node) error {
	switch {
	case seen["trap"] != nil && len(seen) > 1, seen["trap"] == nil && seen["verdict"] == nil:
		return d.fail(resolve(n), "expect either a verdict or a trap, and beside a trap nothing")
	case seen["codes"] != nil && seen["reasons"] != nil:
		return d.fail(seen["reasons"], "both codes and reasons: reasons are {code, text} and have the codes in them")
	}
	return nil
}

// reasons reads {code, text}. A list of codes alone is kept in the short form,
// which every version reads.
func (d *document) reasons(n *yaml.Node, e *bundle.Expect) error {
	short := true
	err := d.items(n, func(n *yaml.Node) error {
		var r bundle.ExpectedReason
		err := d.members(n, func(key, value *yaml.Node) error {
			switch key.Value {
			case "code":
				return d.filled(value, &r.Code)
			case "text":
				short, r.Text = false, new(string)
				return d.text(value, r.Text)
			}
			return d.fail(key, "unknown key %q: a reason has code and text", key.Value)
		})
		if err == nil && r.Code == "" {
			err = d.fail(resolve(n), "a reason has a code")
		}
		e.Reasons = append(e.Reasons, r)
		return err
	})
	if short {
		for _, r := range e.Reasons {
			e.Codes = append(e.Codes, r.Code)
		}
		e.Reasons = nil
	}
	return err
}

// obligations reads types and {type, id, properties}. A list of types alone is
// kept in the short form.
func (d *document) obligations(n *yaml.Node, e *bundle.Expect) error {
	short := true
	err := d.items(n, func(n *yaml.Node) (err error) {
		var o bundle.ExpectedObligation
		if resolve(n).Kind == yaml.ScalarNode {
			err = d.filled(n, &o.Type)
		} else {
			err = d.obligation(n, &o)
		}
		short = short && o.ID == nil && o.Properties == nil
		e.ExactObligations = append(e.ExactObligations, o)
		return err
	})
	if short {
		for _, o := range e.ExactObligations {
			e.Obligations = append(e.Obligations, o.Type)
		}
		e.ExactObligations = nil
	}
	return err
}

func (d *document) obligation(n *yaml.Node, o *bundle.ExpectedObligation) error {
	err := d.members(n, func(key, value *yaml.Node) (err error) {
		switch key.Value {
		case "type":
			return d.filled(value, &o.Type)
		case "id":
			o.ID = new(string)
			return d.text(value, o.ID)
		case "properties":
			o.Properties, err = d.mapping(value)
			return err
		}
		return d.fail(key, "unknown key %q: an obligation has type, id and properties", key.Value)
	})
	if err == nil && o.Type == "" {
		err = d.fail(resolve(n), "an obligation has a type")
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
