package compiler

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// ConfigFile is the name of the file that describes a policy's folder.
const ConfigFile = "holdfast.yaml"

// config is holdfast.yaml; all of it may be left out.
type config struct {
	name, version, description string
	language                   string
	regoV0, noIndex            bool
	class, entrypoint          string
	points, patterns, vectors  []string
	params                     map[string]any
	paramsNode                 *yamlfile.Node
	schema                     []byte // of the parameters, JSON; nil for none
	schemaFile                 string // as holdfast.yaml names it
	schemaPlace                place
	fuel                       uint64
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func readConfig(fsys fs.FS) (*config, error) {
	raw, err := readPlain(fsys, ConfigFile, maxText)
	if errors.Is(err, fs.ErrNotExist) {
		return &config{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseConfig(raw)
}

func parseConfig(raw []byte) (*config, error) {
	d := &document{File: yamlfile.File{Name: ConfigFile}}
	root, err := d.Parse(raw)
	c := &config{}
	if err != nil || root == nil {
		return c, err
	}
	return c, d.Members(root, func(key, n *yamlfile.Node) error { return c.set(d, key, n) })
}

func (c *config) set(d *document, key, n *yamlfile.Node) error {
	switch key.Value {
	case "name":
		return c.word(d, n, &c.name, validName.MatchString, "1 to 64 lower-case letters, digits, '.', '_' and '-'")
	case "version":
		return d.Text(n, &c.version)
	case "description":
		return d.Text(n, &c.description)
	case "language":
		return c.word(d, n, &c.language, func(s string) bool { return slices.Contains(Languages(), s) }, strings.Join(Languages(), ", "))
	case "rego_version":
		var v string
		err := c.word(d, n, &v, func(s string) bool { return s == "v0" || s == "v1" }, "v0 or v1")
		c.regoV0 = v == "v0"
		return err
	case "index":
		return c.indexed(d, n)
	case "class":
		return c.word(d, n, &c.class, func(s string) bool { _, err := wasm.ParseClass(s); return err == nil }, "policy, data or language-runtime")
	case "entrypoint":
		return d.Text(n, &c.entrypoint)
	case "points":
		return c.pointNames(d, n)
	case "patterns":
		return c.patternList(d, n)
	case "vectors":
		return d.Texts(n, &c.vectors)
	case "params":
		var err error
		c.params, err = d.Mapping(n)
		c.paramsNode = n
		return err
	case "params_schema":
		return c.paramsSchema(d, n)
	case "fuel":
		return d.fuel(n, &c.fuel)
	}
	return d.Fail(key, "unknown key %q: want name, version, description, language, rego_version, index, class, entrypoint, points, patterns, params, params_schema, fuel or vectors", key.Value)
}

func (c *config) word(d *document, n *yamlfile.Node, into *string, ok func(string) bool, want string) error {
	if err := d.Text(n, into); err != nil {
		return err
	}
	if !ok(*into) {
		return d.Fail(n, "%q: want %s", *into, want)
	}
	return nil
}

func (c *config) indexed(d *document, n *yamlfile.Node) error {
	var on bool
	if n = yamlfile.Resolve(n); n.Tag != "!!bool" || n.Decode(&on) != nil {
		return d.Fail(n, "index is true or false")
	}
	c.noIndex = !on
	return nil
}

func (c *config) pointNames(d *document, n *yamlfile.Node) error {
	return d.Items(n, func(n *yamlfile.Node) error {
		var p string
		if err := d.Text(n, &p); err != nil {
			return err
		}
		if err := bundle.CheckPoint(p); err != nil {
			return d.Fail(n, "%v", err)
		}
		c.points = append(c.points, p)
		return nil
	})
}

func (c *config) patternList(d *document, n *yamlfile.Node) error {
	return d.Items(n, func(n *yamlfile.Node) error {
		var p string
		if err := d.Text(n, &p); err != nil {
			return err
		}
		if _, err := regexp.Compile(p); err != nil {
			return d.Fail(n, "%v", err)
		}
		c.patterns = append(c.patterns, p)
		return nil
	})
}
