package compiler

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/schema"
)

// schemaFile is where the schema of the parameters is, unless holdfast.yaml
// names another file or has the schema itself.
const schemaFile = "params.schema.json"

// A place is a value of one of the folder's files.
type place struct {
	file string
	node *yamlfile.Node // nil when the file has no such value
}

// fault is an error at what the fault's pointer names below the place, or at
// what is nearest to it. The other faults stand behind.
func (p place) fault(what string, err error) error {
	var faults *schema.Error
	if !errors.As(err, &faults) {
		return err
	}
	reason := what
	for i, f := range faults.Faults {
		if i > 0 {
			reason += ";"
		}
		reason += " " + f.String()
	}
	if faults.More > 0 {
		reason += fmt.Sprintf("; and %d more", faults.More)
	}
	out := &InputError{File: p.file, Reason: reason}
	if p.node != nil {
		n := below(p.node, faults.Faults[0].Pointer)
		out.Line, out.Col = n.Line, n.Column
	}
	return out
}

// below follows a JSON pointer as far as there is something.
func below(n *yamlfile.Node, pointer string) *yamlfile.Node {
	n = yamlfile.Resolve(n)
	steps := strings.Split(pointer, "/")
	for _, step := range steps[1:] {
		next := child(n, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		if next == nil {
			break
		}
		n = yamlfile.Resolve(next)
	}
	return n
}

func child(n *yamlfile.Node, step string) *yamlfile.Node {
	switch n.Kind {
	case yamlfile.Mapping:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	case yamlfile.Sequence:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}

// paramsSchema reads params_schema: a file's name, or the schema itself.
func (c *config) paramsSchema(d *document, n *yamlfile.Node) error {
	switch yamlfile.Resolve(n).Kind {
	case yamlfile.Scalar:
		return d.Filled(n, &c.schemaFile)
	case yamlfile.Mapping:
		var err error
		c.schema, err = d.JSON(n)
		c.schemaPlace = place{ConfigFile, n}
		return err
	}
	return d.Fail(yamlfile.Resolve(n), "must be the name of a file or a JSON Schema, not %s", yamlfile.Kind(yamlfile.Resolve(n)))
}

// readSchema reads the schema from its file, unless holdfast.yaml has it.
func (c *config) readSchema(fsys fs.FS) error {
	if c.schema != nil {
		return nil
	}
	name := c.schemaFile
	if name == "" {
		name = schemaFile
	}
	raw, err := readPlain(fsys, name, maxText)
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.schemaFile == "":
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		return &InputError{File: name, Reason: "holdfast.yaml names this file as params_schema, and it is not there"}
	case err != nil:
		return err
	}
	d := &document{File: yamlfile.File{Name: name}}
	root, err := d.Parse(raw)
	if err == nil && root == nil {
		err = &InputError{File: name, Reason: "empty; want a JSON Schema"}
	}
	if err != nil {
		return err
	}
	c.schemaPlace = place{name, root}
	c.schema, err = d.JSON(root)
	return err
}

// checkSchema holds the schema against its draft, and the default parameters and
// those of every vector against the schema.
func (c *config) checkSchema(pkg *bundle.Package, list []placed) error {
	if c.schema == nil {
		return nil
	}
	pkg.ParamsSchema = c.schema
	s, err := schema.Compile(c.schema)
	if err != nil {
		return c.schemaPlace.fault("the schema of the parameters:", err)
	}
	under := " (the schema is in " + c.schemaPlace.file + ")"
	if err := s.Check(pkg.Merged(nil)); err != nil {
		return place{ConfigFile, c.paramsNode}.fault("params do not satisfy their schema"+under+":", err)
	}
	for _, v := range list {
		if err := s.Check(pkg.Merged(v.vector.Params)); err != nil {
			return v.place.fault(fmt.Sprintf("the params of vector %q do not satisfy their schema%s:", v.vector.Name, under), err)
		}
	}
	return nil
}
