package schema_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/schema"
)

func params(t testing.TB, json string) map[string]any {
	t.Helper()
	v, err := policy.ParseValue([]byte(json))
	if err != nil {
		t.Fatalf("%.200s: %v", json, err)
	}
	return v.(map[string]any)
}

func compile(t testing.TB, json string) *schema.Schema {
	t.Helper()
	s, err := schema.Compile([]byte(json))
	if err != nil {
		t.Fatalf("%.200s: %v", json, err)
	}
	return s
}

const spendCap = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "cap": {"type": "integer", "minimum": 0},
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    "tools": {"type": "array", "items": {"$ref": "#/$defs/name"}, "uniqueItems": true},
    "roles": {"type": "object", "propertyNames": {"$ref": "#/$defs/name"}, "additionalProperties": {"enum": ["r", "w", 1, null]}}
  },
  "required": ["cap"],
  "additionalProperties": false,
  "$defs": {"name": {"type": "string", "minLength": 1, "maxLength": 8}}
}`

func TestCheck(t *testing.T) {
	s := compile(t, spendCap)
	for in, want := range map[string]string{
		`{"cap": 0, "currency": "EUR", "tools": ["a", "b"], "roles": {"x": "r", "y": 1, "z": null}}`: "",
		`{"cap": 2.0}`:                          "", // JSON Schema: a number without a fraction is an integer
		`{"cap": -1}`:                           "at /cap: minimum: got -1, want 0",
		`{"cap": 0.5}`:                          "at /cap: type: got number, want integer",
		`{"cap": "1"}`:                          "at /cap: type: got string, want integer",
		`{}`:                                    "at /: required: missing property 'cap'",
		`{"cap": 1, "cup": 2}`:                  "at /: additionalProperties: additional properties 'cup' not allowed",
		`{"cap": 1, "currency": "eur"}`:         "at /currency: pattern: ",
		`{"cap": 1, "tools": ["a", "", "a"]}`:   "at /tools: uniqueItems: items at 0 and 2 are equal; at /tools/1: minLength: ",
		`{"cap": 1, "roles": {"a/b~": 3}}`:      "at /roles/a~1b~0: enum: must be one of [\"r\",\"w\",1,null]",
		`{"cap": 1, "roles": {"123456789": 1}}`: "at /: maxLength: ",
	} {
		err := s.Check(params(t, in))
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, schema.ErrParams) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
	if err := s.Check(nil); err == nil {
		t.Error("no parameters at all were taken for an object with a cap")
	}
}

func TestManyFaults(t *testing.T) {
	s := compile(t, `{"additionalProperties": false}`)
	in := map[string]any{}
	for i := range 10_000 {
		in[fmt.Sprint(i)] = true
	}
	if err := s.Check(in); err == nil || len(err.Error()) > 1000 {
		t.Errorf("%d bytes", len(err.Error()))
	}
	s = compile(t, `{"additionalProperties": {"type": "null"}}`)
	var faults *schema.Error
	if err := s.Check(in); !errors.As(err, &faults) || len(faults.Faults) != 10 || faults.More != 9_990 || faults.Faults[0].Pointer != "/0" {
		t.Errorf("%v", err)
	}
}

func TestSchemaErrors(t *testing.T) {
	for in, want := range map[string]string{
		`{`:                "",
		`[]`:               "at /: type: got array",
		`{"a": 1, "a":2}`:  "",
		`{"type": "text"}`: "at /type: ",
		`{"properties": {"n": {"minimum": "0"}}}`:                "at /properties/n/minimum: type: got string, want number",
		`{"pattern": "("}`:                                       "at /pattern: regex: error parsing regexp",
		`{"properties": {"n": {"pattern": "(a)\\1"}}}`:           "at /properties/n/pattern: ",
		`{"pattern": "(((a{100}){10}b){100}){10}"}`:              "invalid repeat count",
		`{"pattern": "[a-z]{1000}[a-z]{1000}[a-z]{1000}"}`:       "at /pattern: regex: 9001 instructions, at most 5000",
		`{"$ref": "https://example.com/x.json"}`:                 `"https://example.com/x.json" is another document`,
		`{"$ref": "file:///etc/passwd"}`:                         `"file:///etc/passwd" is another document`,
		`{"$ref": "other.json"}`:                                 `"holdfast:///other.json" is another document`,
		`{"$id": "https://example.com/", "$ref": "x"}`:           "is another document",
		`{"$ref": "#/$defs/none"}`:                               "not found",
		`{"$ref": "#none"}`:                                      "not found",
		`{"$schema": "http://json-schema.org/draft-07/schema#"}`: "at /$schema: must be ",
		`{"properties": {"a": {"$id": "x:y", "$schema": "http://json-schema.org/draft-07/schema#", "type": "null"}}}`: "",
		`{"$schema": "https://example.com/"}`:                              "at /$schema: must be ",
		`{"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}`:          "$dynamicRef",
		`{"dependencies": {"a": {"type": "null"}}}`:                        "dependencies",
		`{"minimum": 1e400}`:                                               "",
		`{"allOf": [` + strings.Repeat(`{"not": {}},`, 600) + `{}]}`:       "1202 objects; at most 1000",
		`{"title": "` + strings.Repeat("x", bundle.MaxParamsSchema) + `"}`: "at most 65536",
		strings.Repeat(`{"not":`, 40) + `{}` + strings.Repeat(`}`, 40):     "",
	} {
		_, err := schema.Compile([]byte(in))
		if err == nil || !errors.Is(err, schema.ErrSchema) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "params.schema.json") {
			t.Errorf("%.100s: got %v, want %s", in, err, want)
		}
	}
}

func TestCheckParams(t *testing.T) {
	pkg := &bundle.Package{Manifest: bundle.Manifest{Params: map[string]any{"cap": int64(1)}}}
	if err := schema.CheckParams(pkg, map[string]any{"x": "y"}); err != nil {
		t.Errorf("no schema: %v", err)
	}
	pkg.ParamsSchema = []byte(spendCap)
	if err := schema.CheckParams(pkg, pkg.Merged(map[string]any{"currency": "EUR"})); err != nil {
		t.Error(err)
	}
	if err := schema.CheckParams(pkg, pkg.Merged(map[string]any{"cap": "x"})); !errors.Is(err, schema.ErrParams) {
		t.Errorf("%v", err)
	}
	pkg.ParamsSchema = []byte(`{"type": 1}`)
	if err := schema.CheckParams(pkg, nil); !errors.Is(err, schema.ErrSchema) {
		t.Errorf("%v", err)
	}
}

// nested returns n lists around inner.
func nested(n int, inner string) string {
	return `{"v": ` + strings.Repeat("[", n) + inner + strings.Repeat("]", n) + `}`
}

func list(n int, item string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
}

// chain is $defs where each of n schemas asks for the next one twice.
func chain(n int, how string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"d%d": %s,`, i, strings.ReplaceAll(how, "NEXT", fmt.Sprintf(`{"$ref": "#/$defs/d%d"}`, i+1)))
	}
	fmt.Fprintf(&b, `"d%d": {"type": "null"}`, n)
	return `"$defs": {` + b.String() + `}`
}

// hostile are schemas and parameters that would take for ever, or all memory.
func hostile() map[string][2]string {
	under := func(rest string) string { return `{"properties": {"v": {"$ref": "#/$defs/d0"}}, ` + rest + `}` }
	loop := func(body string) string {
		return `{"properties": {"v": {"$ref": "#/$defs/a"}}, "$defs": {"a": ` + body + `}}`
	}
	again := `{"$ref": "#/$defs/a"}`
	deep := nested(30, "1")
	return map[string][2]string{
		"doubling anyOf":               {under(chain(60, `{"anyOf": [NEXT, NEXT]}`)), `{"v": 1}`},
		"doubling allOf":               {under(chain(60, `{"allOf": [NEXT, NEXT]}`)), `{"v": null}`},
		"doubling oneOf":               {under(chain(60, `{"oneOf": [NEXT, NEXT]}`)), `{"v": 1}`},
		"doubling under not":           {under(chain(60, `{"not": {"anyOf": [NEXT, NEXT]}}`)), `{"v": 1}`},
		"doubling if":                  {under(chain(60, `{"if": NEXT, "else": NEXT}`)), `{"v": 1}`},
		"doubling dependentSchemas":    {under(chain(60, `{"dependentSchemas": {"x": NEXT, "y": NEXT}}`)), `{"v": {"x": 1, "y": 1}}`},
		"items and contains":           {loop(`{"type": "array", "items": ` + again + `, "contains": ` + again + `}`), deep},
		"items and contains under not": {`{"properties": {"v": {"not": ` + again + `}}, "$defs": {"a": {"type": "array", "items": ` + again + `, "contains": ` + again + `}}}`, deep},
		"items and unevaluatedItems":   {loop(`{"type": "array", "contains": ` + again + `, "unevaluatedItems": ` + again + `}`), deep},
		"prefixItems and items twice":  {loop(`{"allOf": [{"items": ` + again + `}, {"items": ` + again + `}], "type": "array"}`), deep},
		"patterns for one name":        {loop(`{"patternProperties": {"x": ` + again + `, "x?": ` + again + `, "x|y": ` + again + `}}`), `{"v": ` + strings.Repeat(`{"x":`, 30) + "1" + strings.Repeat("}", 30) + `}`},
		"properties and propertyNames": {loop(`{"additionalProperties": {"allOf": [` + again + `,` + again + `]}}`), `{"v": ` + strings.Repeat(`{"x":`, 30) + "1" + strings.Repeat("}", 30) + `}`},
		"a chain at every level":       {under(chain(300, `{"allOf": [NEXT], "items": {"$ref": "#/$defs/d0"}}`)), deep},
		"long pattern, long text":      {`{"properties": {"v": {"pattern": "(x+x+)+y|([^y]{900}a)"}}}`, `{"v": "` + strings.Repeat("x", 900_000) + `"}`},
		"pattern on many names":        {`{"patternProperties": {"^(.*a){800}$": true}}`, `{"v": 1, ` + names(20_000) + `}`},
		"large enum, many items":       {`{"properties": {"v": {"items": {"enum": ` + list(9_000, "0") + `}}}}`, `{"v": ` + list(100_000, "1") + `}`},
		"uniqueItems of large items":   {`{"properties": {"v": {"allOf": ` + list(500, `{"uniqueItems": true}`) + `}}}`, `{"v": [` + list(50_000, "1") + "," + list(50_000, "1") + `]}`},
		"every branch on a long list":  {`{"properties": {"v": {"anyOf": ` + list(900, `{"items": false}`) + `}}}`, `{"v": ` + list(100_000, "1") + `}`},
		"unevaluated on a long list":   {`{"properties": {"v": {"allOf": ` + list(900, `{"unevaluatedItems": true}`) + `}}}`, `{"v": ` + list(100_000, "1") + `}`},
		"multipleOf of long fractions": {`{"properties": {"v": {"items": {"allOf": ` + list(300, `{"multipleOf": 1e-300}`) + `}}}}`, `{"v": ` + list(10_000, "1.7976931348623157e308") + `}`},
	}
}

func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%s%d": 1,`, strings.Repeat("a", 40), i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// No schema holds a node for long, or takes its memory.
func TestHostileSchemas(t *testing.T) {
	for name, c := range hostile() {
		t.Run(name, func(t *testing.T) {
			in := params(t, c[1])
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			s, err := schema.Compile([]byte(c[0]))
			compiled := time.Since(start)
			if err == nil {
				err = s.Check(in)
			}
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
			text := "nil"
			if err != nil {
				text = fmt.Sprintf("%.120s", err)
			}
			t.Logf("compile %v, check %v, %d MiB: %s", compiled, took-compiled, allocated, text)
			// Idle, it takes 0.4 s at most; what is not metered takes minutes or gigabytes.
			if took > 20*time.Second || allocated > 512 {
				t.Errorf("took %v and allocated %d MiB", took, allocated)
			}
		})
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(spendCap), []byte(`{"cap": 1}`))
	for _, c := range hostile() {
		if len(c[0])+len(c[1]) < 10_000 {
			f.Add([]byte(c[0]), []byte(c[1]))
		}
	}
	f.Fuzz(func(t *testing.T, doc, in []byte) {
		s, err := schema.Compile(doc)
		if err != nil {
			if !errors.Is(err, schema.ErrSchema) {
				t.Fatalf("%v", err)
			}
			return
		}
		v, err := policy.ParseValue(in)
		m, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		if err := s.Check(m); err != nil && !errors.Is(err, schema.ErrParams) {
			t.Fatalf("%v", err)
		}
	})
}
