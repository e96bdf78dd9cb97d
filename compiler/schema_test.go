package compiler

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

const capSchema = `{
  "type": "object",
  "properties": {"cap": {"type": "integer", "minimum": 0}, "roles": {"additionalProperties": {"items": {"type": "string"}}}},
  "required": ["cap"],
  "additionalProperties": false
}`

func TestParamsSchema(t *testing.T) {
	vector := "- name: v\n  " + request + "\n  expect: {verdict: deny}\n"
	for _, c := range []struct {
		name, want string
		files      []string
	}{
		{"all of it right", "", []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1}", "vectors.yaml", vector + "  params: {cap: 2, roles: {a: [x]}}\n"}},
		{"a vector that overlays", "", []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1}", "vectors.yaml", vector + "  params: {roles: {a: [x]}}\n"}},
		{"a vector without", "", []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1}", "vectors.yaml", vector}},
		{"named", "", []string{"s.json", capSchema, ConfigFile, "params: {cap: 1}\nparams_schema: s.json"}},
		{"in YAML", "", []string{"s.yaml", "{required: [cap]}", ConfigFile, "params: {cap: 1}\nparams_schema: s.yaml"}},
		{"inline", "", []string{ConfigFile, "params: {cap: 1}\nparams_schema: {required: [cap]}"}},
		{"named, not there", "s.json: holdfast.yaml names this file", []string{ConfigFile, "params_schema: s.json"}},
		{"outside", "../s.json: holdfast.yaml names this file", []string{ConfigFile, "params_schema: ../s.json"}},
		{"neither", "holdfast.yaml:1:16: must be the name of a file or a JSON Schema, not a list", []string{ConfigFile, "params_schema: [a]"}},
		{"empty", "params.schema.json: empty", []string{schemaFile, " "}},
		{"no JSON", "params.schema.json:2:1: ", []string{schemaFile, "{\n"}},
		{"a key twice", `params.schema.json:1:15: `, []string{schemaFile, `{"title": "", "title": ""}`}},
		{"not a schema", "params.schema.json:2:32: the schema of the parameters: at /properties/n/type: ", []string{schemaFile, "{\n  \"properties\": {\"n\": {\"type\": \"int\"}}}"}},
		{"inline, not a schema", "holdfast.yaml:2:11: the schema of the parameters: at /minimum: type: got string, want number", []string{ConfigFile, "params_schema:\n minimum: a"}},
		{"no defaults", "holdfast.yaml: params do not satisfy their schema (the schema is in params.schema.json): at /: required: missing property 'cap'", []string{schemaFile, capSchema}},
		{"defaults", "holdfast.yaml:2:8: params do not satisfy their schema (the schema is in params.schema.json): at /cap: minimum: got -1, want 0", []string{schemaFile, capSchema, ConfigFile, "params:\n  cap: -1"}},
		{"deep in the defaults", "holdfast.yaml:1:34: params do not satisfy their schema (the schema is in params.schema.json): at /roles/a/1: type: got number, want string", []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1, roles: {a: [ x, 1]}}"}},
		{"not allowed", "holdfast.yaml:1:9: params do not satisfy their schema (the schema is in params.schema.json): at /: additionalProperties: additional properties 'cup'", []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1, cup: 2}"}},
		{"a vector", `vectors.yaml:4:17: the params of vector "v" do not satisfy their schema (the schema is in params.schema.json): at /cap: type: got string, want integer`,
			[]string{schemaFile, capSchema, ConfigFile, "params: {cap: 1}", "vectors.yaml", vector + "  params: {cap: many}\n"}},
		{"a vector in JSON", `vectors.json:2:20: the params of vector "j"`, []string{schemaFile, capSchema, ConfigFile, "params: {cap: 1}", "vectors.json",
			"[{\"name\": \"j\", \"expect\": {\"verdict\": \"deny\"}, \"request\": {\"document\": 1},\n \"params\": {\"cap\": 1.5}}]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Vectors are not run here: there is no engine.
			cfg, err := readConfig(folder(c.files...))
			if err == nil {
				err = cfg.readSchema(folder(c.files...))
			}
			var list []placed
			if err == nil {
				list, err = readVectors(folder(c.files...), cfg)
			}
			if err == nil {
				pkg := &bundle.Package{}
				pkg.Params = cfg.params
				err = cfg.checkSchema(pkg, list)
				if err == nil && len(pkg.ParamsSchema) == 0 {
					t.Error("the schema is not in the package")
				}
			}
			var in *InputError
			if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &in) || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// The schema is the same in the package however it was written, and is no data
// of a Rego policy.
func TestParamsSchemaInThePackage(t *testing.T) {
	for _, files := range [][]string{
		{schemaFile, "{\"required\" : [\n\"cap\"] }"},
		{ConfigFile, "params_schema: {required: [cap]}"},
	} {
		files = append(files, "p.rego", simple)
		if files[0] != ConfigFile {
			files = append(files, ConfigFile, "params: {cap: 1}")
		} else {
			files[1] += "\nparams: {cap: 1}"
		}
		b, err := BuildFS(t.Context(), folder(files...), Options{Loader: &admitOnly{}})
		if err != nil || string(b.Package.ParamsSchema) != `{"required":["cap"]}` || strings.Contains(string(b.Package.Data), "required") {
			t.Errorf("%v: %+v", err, b)
		}
	}
}
