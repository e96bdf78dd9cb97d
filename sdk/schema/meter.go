package schema

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// errWork ends a check that would take too long.
var errWork = errors.New("too much work")

// A meter counts the work of a check. Schemas that refer to themselves can ask
// for work that is exponential in the depth of a value, so each visit of a value
// by a subschema pays in advance for all that it does beside visiting others;
// when nothing is left, every further visit ends at once.
type meter struct {
	left int
}

func (m *meter) charge(units int) error {
	if m.left >= 0 {
		m.left -= units
	}
	if m.left < 0 {
		return errWork
	}
	return nil
}

// attach puts the meter into every schema that can be reached from root, in the
// place of "format", which the library looks at before all that can be long;
// formats themselves are annotations in draft 2020-12 and not checked. "const" and
// "enum", which it would look at earlier, are looked at here.
func (m *meter) attach(root *jsonschema.Schema) error {
	costs := map[*jsonschema.Schema]*cost{}
	unevaluated := false
	for waiting := []*jsonschema.Schema{root}; len(waiting) > 0; {
		s := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if s == nil || costs[s] != nil {
			continue
		}
		if s.DraftVersion != 2020 || s.DynamicRef != nil || s.Dependencies != nil {
			return schemaError(pointerOf(s.Location), "", "$dynamicRef, dependencies and other drafts than 2020-12 are not supported; use $ref, $defs and dependentSchemas")
		}
		c := costOf(s)
		costs[s] = c
		unevaluated = unevaluated || s.UnevaluatedItems != nil || s.UnevaluatedProperties != nil
		waiting = append(waiting, c.inner...)
	}
	for s, c := range costs {
		if unevaluated { // each schema at the same place then keeps a list of what was not looked at
			c.perChild += 8 * (1 + c.same)
		}
		s.Enum, s.Const = nil, nil
		s.Format = &jsonschema.Format{Name: "work", Validate: func(v any) error {
			if err := m.charge(c.of(v)); err != nil {
				return err
			}
			return c.oneOf(v)
		}}
	}
	return nil
}

// cost is what one visit of a schema costs beside the visits that it causes.
type cost struct {
	fixed    int // each visit
	perChild int // each member or item
	names    int // instructions of the patterns that every name is matched with
	pattern  int // instructions of the pattern that a text is matched with
	same     int // schemas that look at the same value
	unique   bool
	enum     [][]any // of each one must be equal
	inner    []*jsonschema.Schema
}

func costOf(s *jsonschema.Schema) *cost {
	same := slices.Concat([]*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else}, s.AllOf, s.AnyOf, s.OneOf, slices.Collect(maps.Values(s.DependentSchemas)))
	children := []*jsonschema.Schema{s.Contains, s.Items2020, s.UnevaluatedItems, s.UnevaluatedProperties, s.PropertyNames}
	if more, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		children = append(children, more)
	}
	c := &cost{same: count(same), unique: s.UniqueItems, pattern: sizeOf(s.Pattern), inner: slices.Concat(same, children, s.PrefixItems, slices.Collect(maps.Values(s.Properties)))}
	c.fixed = 1 + c.same + len(s.Required) + len(s.DependentRequired)
	c.perChild = 1 + count(children)
	for _, names := range s.DependentRequired {
		c.fixed += len(names)
	}
	for re, inner := range s.PatternProperties {
		c.names += sizeOf(re)
		c.perChild++
		c.inner = append(c.inner, inner)
	}
	if s.Enum != nil {
		c.enum = append(c.enum, s.Enum.Values)
		c.fixed += values(s.Enum.Values)
	}
	if s.Const != nil {
		c.enum = append(c.enum, []any{*s.Const})
		c.fixed += values(*s.Const)
	}
	if s.Minimum != nil || s.Maximum != nil || s.ExclusiveMinimum != nil || s.ExclusiveMaximum != nil || s.MultipleOf != nil {
		c.fixed += 20
	}
	return c
}

func count(list []*jsonschema.Schema) (n int) {
	for _, s := range list {
		if s != nil {
			n++
		}
	}
	return n
}

// of is what a visit of v costs.
func (c *cost) of(v any) int {
	switch v := v.(type) {
	case map[string]any:
		units := c.fixed + len(v)*c.perChild
		if c.names > 0 {
			for name := range v {
				units += matching(len(name), c.names)
			}
		}
		return units
	case []any:
		units := c.fixed + len(v)*c.perChild
		if c.unique {
			units += 4 * (1 + min(len(v), 20)) * values(v) // short lists are compared in pairs
		}
		return units
	case string:
		units := c.fixed + len(v)/64
		if c.pattern > 0 {
			units += matching(len(v), c.pattern)
		}
		return units
	}
	return c.fixed
}

// A choiceError says that a value is none of those that a schema lists.
type choiceError struct{ choices []any }

func (e *choiceError) Error() string {
	text, err := json.Marshal(e.choices)
	if err != nil {
		return "is not one of those that are listed"
	}
	return "must be one of " + short(string(text))
}

func (c *cost) oneOf(v any) error {
	for _, choices := range c.enum {
		if !slices.ContainsFunc(choices, func(choice any) bool { return equal(choice, v) }) {
			return &choiceError{choices}
		}
	}
	return nil
}

// equal compares as JSON Schema does: 1 and 1.0 are the same number.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case int64:
		if f, ok := b.(float64); ok {
			return sameNumber(a, f)
		}
	case float64:
		if i, ok := b.(int64); ok {
			return sameNumber(i, a)
		}
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}

func sameNumber(i int64, f float64) bool {
	return f >= -1<<63 && f < 1<<63 && f == math.Trunc(f) && int64(f) == i
}

// matching is what it costs to look for a pattern in a text: at worst every
// instruction at every byte.
func matching(bytes, instructions int) int { return 1 + (bytes+1)*instructions/8 }

// values counts v and all that is in it, texts by their length.
func values(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			n += 1 + len(name)/64 + values(e)
		}
	case []any:
		for _, e := range v {
			n += values(e)
		}
	case string:
		n += len(v) / 64
	}
	return n
}
