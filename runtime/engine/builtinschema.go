package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Units of a step of a JSON schema's validation, and of a step of its compilation.
const (
	schemaStepFuel    = 400 // most of it for the error that it can make
	schemaCompileFuel = 2_000
)

var (
	errSchemaFile = errors.New("a schema may not name files")
	errSchemaID   = errors.New("a schema with references may not name parts of itself")
)

// boundVerifySchema is for json.verify_schema(schema).
func boundVerifySchema(i *instance, a arguments) error {
	_, err := compilableSchema(i, a.terms[0])
	return err
}

// boundMatchSchema is for json.match_schema(document, schema): it applies each
// part of the schema to all that it could be asked of, and charges for it.
func boundMatchSchema(i *instance, a arguments) error {
	schema, err := compilableSchema(i, a.terms[1])
	if err != nil {
		return err
	}
	w := schemaWalk{instance: i, root: schema}
	w.apply(schema, decoded(a.terms[0]))
	return nil
}

// compilableSchema refuses a schema that could lead to a file. The network is
// closed to it by the capabilities of the call.
func compilableSchema(i *instance, t *ast.Term) (any, error) {
	schema := decoded(t)
	var refused error
	if root, ok := schema.(map[string]any); ok && inside(root, "$ref") {
		for _, part := range root {
			if inside(part, "$id") || inside(part, "id") {
				return nil, errSchemaID
			}
		}
	}
	walkJSON(schema, func(text string) {
		i.charge(schemaCompileFuel)
		if u, err := url.Parse(text); err == nil && strings.EqualFold(u.Scheme, "file") {
			refused = errSchemaFile
		}
	}, func(pattern string) {
		size, err := i.patternSize(pattern)
		if err != nil {
			refused = err
		}
		i.charge(size * patternFuel)
	})
	return schema, refused
}

// decoded is a document or schema as JSON; these built-ins also take its text.
func decoded(t *ast.Term) any {
	if text, ok := t.Value.(ast.String); ok {
		var v any
		decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
		decoder.UseNumber()
		if decoder.Decode(&v) != nil {
			return nil
		}
		return v
	}
	v, err := ast.JSON(t.Value)
	if err != nil {
		return nil
	}
	return v
}

// inside says whether a part of the schema has such a keyword with a string.
func inside(schema any, keyword string) bool {
	switch s := schema.(type) {
	case []any:
		return slices.ContainsFunc(s, func(part any) bool { return inside(part, keyword) })
	case map[string]any:
		for key, part := range s {
			if _, isString := part.(string); isString && key == keyword || inside(part, keyword) {
				return true
			}
		}
	}
	return false
}

// hasChoice says whether a schema has parts that are read in no certain order.
func hasChoice(schema any) bool {
	switch s := schema.(type) {
	case []any:
		return slices.ContainsFunc(s, hasChoice)
	case map[string]any:
		for _, keyword := range []string{"properties", "patternProperties", "definitions", "dependencies"} {
			if parts, ok := s[keyword].(map[string]any); ok && len(parts) > 1 {
				return true
			}
		}
		for keyword, part := range s {
			if keyword == "$ref" || keyword == "$id" || keyword == "id" || hasChoice(part) {
				return true
			}
		}
	}
	return false
}

// walkJSON visits all strings, and all that a schema may mean as patterns.
func walkJSON(v any, text, pattern func(string)) {
	switch v := v.(type) {
	case string:
		text(v)
	case []any:
		for _, element := range v {
			walkJSON(element, text, pattern)
		}
	case map[string]any:
		if p, ok := v["pattern"].(string); ok {
			pattern(p)
		}
		if patterns, ok := v["patternProperties"].(map[string]any); ok {
			for _, p := range slices.Sorted(maps.Keys(patterns)) {
				pattern(p)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text(key)
			walkJSON(v[key], text, pattern)
		}
	}
}

// schemaWalk counts at least the steps of a validation. References can make a
// small schema endless, and endless is what the walk then is, until the fuel ends.
type schemaWalk struct {
	instance *instance
	root     any
}

// here are the keywords whose schemas judge the same value.
var here = []string{"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}

// below are those whose schemas judge its members.
var below = []string{"items", "additionalItems", "contains", "additionalProperties"}

func (w *schemaWalk) apply(schema, value any) {
	w.instance.charge(schemaStepFuel)
	switch s := schema.(type) {
	case []any:
		for _, element := range s {
			w.apply(element, value)
		}
	case map[string]any:
		w.keywords(s, value)
	}
}

func (w *schemaWalk) keywords(schema map[string]any, value any) {
	if reference, ok := schema["$ref"].(string); ok {
		w.apply(w.resolve(reference), value)
	}
	for _, keyword := range here {
		if s, ok := schema[keyword]; ok {
			w.apply(s, value)
		}
	}
	if dependencies, ok := schema["dependencies"].(map[string]any); ok {
		for _, s := range dependencies {
			w.apply(s, value) // a schema, or a list of names
		}
	}
	w.lists(schema, value)
	w.members(schema, value)
	w.unique(schema, value)
}

// lists charges for keywords that compare the value with each of a list.
func (w *schemaWalk) lists(schema map[string]any, value any) {
	if required, ok := schema["required"].([]any); ok {
		w.instance.charge(schemaStepFuel * uint64(len(required)))
	}
	if choices, ok := schema["enum"].([]any); ok {
		w.instance.charge(schemaStepFuel * (uint64(len(choices)) + size(value)))
	}
	if _, ok := schema["const"]; ok {
		w.instance.charge(schemaStepFuel * size(value))
	}
}

// size is how many values there are in a value.
func size(value any) uint64 {
	n := uint64(1)
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			n += size(element)
		}
	case map[string]any:
		for _, element := range v {
			n += size(element)
		}
	case string:
		n += uint64(len(v)) / 64
	}
	return n
}

func (w *schemaWalk) members(schema map[string]any, value any) {
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			w.member(schema, "", element)
		}
	case map[string]any:
		for key, element := range v {
			w.member(schema, key, element)
		}
	}
}

func (w *schemaWalk) member(schema map[string]any, key string, value any) {
	for _, keyword := range below {
		if s, ok := schema[keyword]; ok {
			w.apply(s, value)
		}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		w.apply(properties[key], value)
	}
	if patterns, ok := schema["patternProperties"].(map[string]any); ok {
		for pattern, s := range patterns {
			w.text(map[string]any{"pattern": pattern}, key)
			w.apply(s, value)
		}
	}
	if s, ok := schema["propertyNames"]; ok {
		w.apply(s, key)
	}
}

// unique charges for comparing all elements, and for the text of a pattern.
func (w *schemaWalk) unique(schema map[string]any, value any) {
	switch v := value.(type) {
	case []any:
		if _, ok := schema["uniqueItems"]; ok {
			w.instance.charge(schemaStepFuel*size(v) + product(uint64(len(v)), uint64(len(v))))
		}
	case string:
		w.text(schema, v)
	}
}

// text charges for a pattern, and for a text that is one itself.
func (w *schemaWalk) text(schema map[string]any, text string) {
	w.instance.charge(uint64(len(text)))
	if pattern, ok := schema["pattern"].(string); ok {
		if size, err := w.instance.patternSize(pattern); err == nil {
			w.instance.charge(product(size, uint64(len(text))))
		}
	}
	if schema["format"] == "regex" {
		size, err := w.instance.patternSize(text)
		if err != nil {
			size = math.MaxInt64 // no fuel is enough
		}
		w.instance.charge(product(size, patternFuel))
	}
}

// resolve follows a reference within the schema; what cannot be found, the
// built-in will not find either.
func (w *schemaWalk) resolve(reference string) any {
	_, fragment, _ := strings.Cut(reference, "#")
	at := w.root
	for _, part := range strings.Split(strings.Trim(fragment, "/"), "/") {
		object, ok := at.(map[string]any)
		if part == "" || !ok {
			break // the whole of an array costs more than its parts
		}
		part, err := url.PathUnescape(strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
		if err != nil {
			return nil
		}
		at = object[part]
	}
	return at
}
