package compiler

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
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
	raw, err := readPlain(fsys, name, maxText)
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
	d := &document{File: yamlfile.File{Name: file}}
	root, err := d.Parse(raw)
	if err != nil || root == nil {
		return nil, err
	}
	var list []placed
	names := map[string]bool{}
	err = d.Items(root, func(n *yamlfile.Node) error {
		v, err := d.vector(n, point)
		if err != nil {
			return err
		}
		if names[v.Name] {
			return d.Fail(n, "a vector %q twice", v.Name)
		}
		names[v.Name] = true
		at := yamlfile.Resolve(n)
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

func (d *document) vector(n *yamlfile.Node, point string) (bundle.Vector, error) {
	v := bundle.Vector{Point: point}
	var request, expect *yamlfile.Node
	err := d.Members(n, func(key, value *yamlfile.Node) (err error) {
		switch key.Value {
		case "name":
			return d.Text(value, &v.Name)
		case "point":
			return d.Text(value, &v.Point)
		case "request":
			request = value
		case "expect":
			expect = value
		case "params":
			v.Params, err = d.Mapping(value)
		default:
			err = d.Fail(key, "unknown key %q: want name, point, request, params or expect", key.Value)
		}
		return err
	})
	switch {
	case err != nil:
		return v, err
	case v.Name == "" || request == nil || expect == nil:
		return v, d.Fail(n, "a vector has a name, a request and an expect")
	}
	if err := d.request(request, &v); err != nil {
		return v, err
	}
	return v, d.expect(expect, &v.Expect)
}

func (d *document) request(n *yamlfile.Node, v *bundle.Vector) (err error) {
	if v.Request, err = d.JSON(n); err != nil {
		return err
	}
	if err := bundle.CheckPoint(v.Point); err != nil {
		return d.Fail(n, "%v", err)
	}
	_, err = policy.ParseRequest(v.Point, v.Request)
	var se *policy.SyntaxError
	switch {
	case errors.As(err, &se) && se.Pointer != "":
		return d.Fail(yamlfile.Resolve(n), "request, at %s: %s", se.Pointer, se.Reason)
	case errors.As(err, &se):
		return d.Fail(yamlfile.Resolve(n), "request: %s", se.Reason)
	}
	return err
}

func (d *document) expect(n *yamlfile.Node, e *bundle.Expect) error {
	seen := map[string]*yamlfile.Node{}
	err := d.Members(n, func(key, value *yamlfile.Node) (err error) {
		seen[key.Value] = key
		switch key.Value {
		case "verdict":
			err = d.verdict(value, &e.Verdict)
		case "codes":
			err = d.Texts(value, &e.Codes)
		case "reasons":
			err = d.reasons(value, e)
		case "obligations":
			err = d.obligations(value, e)
		case "value":
			e.HasValue = true
			e.Value, err = d.Value(value)
		case "fuel_max":
			err = d.fuel(value, &e.FuelMax)
		case "trap":
			err = d.trap(value, &e.Trap)
		default:
			err = d.Fail(key, "unknown key %q: want verdict, codes, reasons, obligations, value, fuel_max or trap", key.Value)
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.expectation(n, seen)
}

// expectation wants one form of each thing that can be said in two.
func (d *document) expectation(n *yamlfile.Node, seen map[string]*yamlfile.Node) error {
	switch {
	case seen["trap"] != nil && len(seen) > 1, seen["trap"] == nil && seen["verdict"] == nil:
		return d.Fail(yamlfile.Resolve(n), "expect either a verdict or a trap, and beside a trap nothing")
	case seen["codes"] != nil && seen["reasons"] != nil:
		return d.Fail(seen["reasons"], "both codes and reasons: reasons are {code, text} and have the codes in them")
	}
	return nil
}

// reasons reads {code, text}. A list of codes alone is kept in the short form,
// which every version reads.
func (d *document) reasons(n *yamlfile.Node, e *bundle.Expect) error {
	short := true
	err := d.Items(n, func(n *yamlfile.Node) error {
		var r bundle.ExpectedReason
		err := d.Members(n, func(key, value *yamlfile.Node) error {
			switch key.Value {
			case "code":
				return d.Filled(value, &r.Code)
			case "text":
				short, r.Text = false, new(string)
				return d.Text(value, r.Text)
			}
			return d.Fail(key, "unknown key %q: a reason has code and text", key.Value)
		})
		if err == nil && r.Code == "" {
			err = d.Fail(yamlfile.Resolve(n), "a reason has a code")
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
func (d *document) obligations(n *yamlfile.Node, e *bundle.Expect) error {
	short := true
	err := d.Items(n, func(n *yamlfile.Node) (err error) {
		var o bundle.ExpectedObligation
		if yamlfile.Resolve(n).Kind == yamlfile.Scalar {
			err = d.Filled(n, &o.Type)
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

func (d *document) obligation(n *yamlfile.Node, o *bundle.ExpectedObligation) error {
	err := d.Members(n, func(key, value *yamlfile.Node) (err error) {
		switch key.Value {
		case "type":
			return d.Filled(value, &o.Type)
		case "id":
			o.ID = new(string)
			return d.Text(value, o.ID)
		case "properties":
			o.Properties, err = d.Mapping(value)
			return err
		}
		return d.Fail(key, "unknown key %q: an obligation has type, id and properties", key.Value)
	})
	if err == nil && o.Type == "" {
		err = d.Fail(yamlfile.Resolve(n), "an obligation has a type")
	}
	return err
}

func (d *document) verdict(n *yamlfile.Node, into *policy.Verdict) error {
	var word string
	if err := d.Text(n, &word); err != nil {
		return err
	}
	v, err := policy.ParseVerdict(word)
	if err != nil {
		return d.Fail(n, "%v", err)
	}
	*into = v
	return nil
}

func (d *document) trap(n *yamlfile.Node, into *string) error {
	if err := d.Text(n, into); err != nil {
		return err
	}
	known := []abi.TrapCode{
		abi.TrapFuel, abi.TrapDepth, abi.TrapMemory, abi.TrapUnreachable, abi.TrapArithmetic, abi.TrapCall, abi.TrapAbort,
		abi.TrapRefused, abi.TrapInput, abi.TrapOutput, abi.TrapBuiltin,
	}
	if !slices.Contains(known, abi.TrapCode(*into)) {
		return d.Fail(n, "unknown trap %q: want one of %q", *into, known)
	}
	return nil
}
