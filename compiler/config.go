package compiler

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

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
	paramsNode                 *yaml.Node
	schema                     []byte // of the parameters, JSON; nil for none
	schemaFile                 string // as holdfast.yaml names it
	schemaPlace                place
	fuel                       uint64
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func readConfig(fsys fs.FS) (*config, error) {
	raw, err := fs.ReadFile(fsys, ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &config{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseConfig(raw)
}

func parseConfig(raw []byte) (*config, error) {
	d := &document{file: ConfigFile}
	root, err := d.parse(raw)
	c := &config{}
	if err != nil || root == nil {
		return c, err
	}
	return c, d.members(root, func(key, n *yaml.Node) error { return c.set(d, key, n) })
}

func (c *config) set(d *document, key, n *yaml.Node) error {
	switch key.Value {
	case "name":
		return c.word(d, n, &c.name, validName.MatchString, "1 to 64 lower-case letters, digits, '.', '_' and '-'")
	case "version":
		return d.text(n, &c.version)
	case "description":
		return d.text(n, &c.description)
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
		return d.text(n, &c.entrypoint)
	case "points":
		return c.pointNames(d, n)
	case "patterns":
		return c.patternList(d, n)
	case "vectors":
		return d.texts(n, &c.vectors)
	case "params":
		var err error
		c.params, err = d.mapping(n)
		c.paramsNode = n
		return err
	case "params_schema":
		return c.paramsSchema(d, n)
	case "fuel":
		return d.fuel(n, &c.fuel)
	}
	return d.fail(key, "unknown key %q: want name, version, description, language, rego_version, index, class, entrypoint, points, patterns, params, params_schema, fuel or vectors", key.Value)
}

func (c *config) word(d *document, n *yaml.Node, into *string, ok func(string) bool, want string) error {
	if err := d.text(n, into); err != nil {
		return err
	}
	if !ok(*into) {
		return d.fail(n, "%q: want %s", *into, want)
	}
	return nil
}

func (c *config) indexed(d *document, n *yaml.Node) error {
	var on bool
	if n = resolve(n); n.Tag != "!!bool" || n.Decode(&on) != nil {
		return d.fail(n, "index is true or false")
	}
	c.noIndex = !on
	return nil
}

func (c *config) pointNames(d *document, n *yaml.Node) error {
	return d.items(n, func(n *yaml.Node) error {
		var p string
		if err := d.text(n, &p); err != nil {
			return err
		}
		if err := bundle.CheckPoint(p); err != nil {
			return d.fail(n, "%v", err)
		}
		c.points = append(c.points, p)
		return nil
	})
}

func (c *config) patternList(d *document, n *yaml.Node) error {
	return d.items(n, func(n *yaml.Node) error {
		var p string
		if err := d.text(n, &p); err != nil {
			return err
		}
		if _, err := regexp.Compile(p); err != nil {
			return d.fail(n, "%v", err)
		}
		c.patterns = append(c.patterns, p)
		return nil
	})
}
