package vectors

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// object is a map whose members have an order.
type object []member

type member struct {
	name  string
	value any
}

// word is a text of ours, such as a verdict: shown without quotes.
type word string

// Expected returns as JSON what the vector demands, and only that.
func (r VectorResult) Expected() json.RawMessage {
	if r.want == nil {
		return nil
	}
	return Expectation(r.want)
}

// Expectation returns an expectation as JSON: only what it demands.
func Expectation(e *bundle.Expect) json.RawMessage {
	r := VectorResult{want: e}
	return json.RawMessage(text(r.expected(nil)))
}

// Value returns a policy value as JSON in which numbers with a fraction keep it.
func Value(v any) json.RawMessage { return json.RawMessage(text(v)) }

// Actual returns as JSON the decision that came, or {"trap", "detail"}. Numbers
// with a fraction keep it: 1.0 is not 1.
func (r VectorResult) Actual() json.RawMessage {
	if r.want == nil {
		return nil
	}
	return json.RawMessage(text(r.actual()))
}

func (r *VectorResult) actual() object {
	if r.err != nil {
		return object{{"trap", word(trapCode(r.err))}, {"detail", r.err.Error()}}
	}
	out := object{{"verdict", word(r.got.Verdict.String())}, {"reasons", reasons(r.got.Reasons)}, {"obligations", obligations(r.got.Obligations)}}
	if r.got.Value != nil || r.want.HasValue {
		out = append(out, member{"value", r.got.Value})
	}
	if r.want.FuelMax > 0 {
		out = append(out, member{"fuel", int64(r.Fuel)})
	}
	return out
}

// expected is what the vector demands; what it leaves open is taken from fill
// when that is given, so that it does not show as a difference.
func (r *VectorResult) expected(fill *policy.Decision) object {
	if r.want.Trap != "" {
		return object{{"trap", word(r.want.Trap)}}
	}
	out := object{
		{"verdict", word(r.want.Verdict.String())}, {"reasons", expectedReasons(r.want, fill)}, {"obligations", expectedObligations(r.want, fill)},
	}
	switch {
	case r.want.HasValue:
		out = append(out, member{"value", r.want.Value})
	case fill != nil && fill.Value != nil:
		out = append(out, member{"value", fill.Value})
	}
	switch {
	case r.want.FuelMax == 0:
	case fill == nil:
		out = append(out, member{"fuel_max", int64(r.want.FuelMax)})
	case r.tooMuchFuel():
		out = append(out, member{"fuel", word(fmt.Sprintf("at most %d", r.want.FuelMax))})
	default:
		out = append(out, member{"fuel", int64(r.Fuel)})
	}
	return out
}

func reasons(list []policy.Reason) []any {
	out := []any{}
	for _, r := range list {
		out = append(out, object{{"code", r.Code}, {"text", r.Text}})
	}
	return out
}

func obligations(list []policy.Obligation) []any {
	out := []any{}
	for _, o := range list {
		out = append(out, obligation(o.Type, &o.ID, o.Properties))
	}
	return out
}

func obligation(typ string, id *string, properties map[string]any) object {
	out := object{{"type", typ}}
	if id != nil && *id != "" {
		out = append(out, member{"id", *id})
	}
	if len(properties) > 0 {
		out = append(out, member{"properties", properties})
	}
	return out
}

func expectedReasons(want *bundle.Expect, fill *policy.Decision) []any {
	list := want.Reasons
	for _, code := range want.Codes {
		list = append(list, bundle.ExpectedReason{Code: code})
	}
	out, from := []any{}, follower[policy.Reason]{}
	if fill != nil {
		from.rest = fill.Reasons
	}
	for _, r := range list {
		o := object{{"code", r.Code}}
		got := from.next(func(g policy.Reason) bool { return g.Code == r.Code })
		switch {
		case r.Text != nil:
			o = append(o, member{"text", *r.Text})
		case got != nil:
			o = append(o, member{"text", got.Text})
		}
		out = append(out, o)
	}
	return out
}

func expectedObligations(want *bundle.Expect, fill *policy.Decision) []any {
	list := want.ExactObligations
	for _, typ := range want.Obligations {
		list = append(list, bundle.ExpectedObligation{Type: typ})
	}
	out, from := []any{}, follower[policy.Obligation]{}
	if fill != nil {
		from.rest = fill.Obligations
	}
	for _, o := range list {
		got := from.next(func(g policy.Obligation) bool { return g.Type == o.Type })
		if got != nil && o.ID == nil {
			o.ID = &got.ID
		}
		if got != nil && o.Properties == nil {
			o.Properties = got.Properties
		}
		out = append(out, obligation(o.Type, o.ID, o.Properties))
	}
	return out
}

// A follower finds in a list what comes next of a kind, and skips what stands
// before it.
type follower[T any] struct{ rest []T }

func (f *follower[T]) next(is func(T) bool) *T {
	i := slices.IndexFunc(f.rest, is)
	if i < 0 {
		return nil
	}
	found := &f.rest[i]
	f.rest = f.rest[i+1:]
	return found
}

// members returns the members of an object or a map in their order.
func members(v any) (object, bool) {
	switch v := v.(type) {
	case object:
		return v, true
	case map[string]any:
		var out object
		for _, name := range slices.Sorted(maps.Keys(v)) {
			out = append(out, member{name, v[name]})
		}
		return out, true
	}
	return nil, false
}

// text writes a value as JSON, so that numbers and texts can be told apart.
func text(v any) string {
	var b strings.Builder
	writeJSON(&b, v)
	return b.String()
}

func writeJSON(b *strings.Builder, v any) {
	if o, ok := members(v); ok {
		b.WriteByte('{')
		for i, m := range o {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(scalar(m.name) + ":")
			writeJSON(b, m.value)
		}
		b.WriteByte('}')
		return
	}
	list, ok := v.([]any)
	if !ok {
		if w, ok := v.(word); ok {
			v = string(w)
		}
		b.WriteString(scalar(v))
		return
	}
	b.WriteByte('[')
	for i, e := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		writeJSON(b, e)
	}
	b.WriteByte(']')
}

// scalar writes one value without parts; a number with a fraction keeps it.
func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case word:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case []byte: // only a guest can answer bytes
		return `"h'` + hex.EncodeToString(v) + `'"`
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return strconv.Quote(fmt.Sprint(v))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// yamlLines writes a value as lines of YAML; texts are always in quotes.
func yamlLines(v any, indent string) []string {
	var lines []string
	if o, ok := members(v); ok {
		for _, m := range o {
			lines = append(lines, under(indent, key(m.name)+":", m.value)...)
		}
		return lines
	}
	list, ok := v.([]any)
	if !ok {
		return []string{indent + scalar(v)}
	}
	for _, e := range list {
		inner := yamlLines(e, indent+"  ")
		if isEmpty(e) {
			inner = []string{indent + "  " + text(e)}
		}
		inner[0] = indent + "- " + inner[0][len(indent)+2:]
		lines = append(lines, inner...)
	}
	return lines
}

// under writes what stands below or beside a key.
func under(indent, key string, v any) []string {
	_, isObject := members(v)
	list, isList := v.([]any)
	switch {
	case isEmpty(v):
		return []string{indent + key + " " + text(v)}
	case isObject:
		return append([]string{indent + key}, yamlLines(v, indent+"  ")...)
	case isList:
		return append([]string{indent + key}, yamlLines(list, indent+"  ")...)
	}
	return []string{indent + key + " " + scalar(v)}
}

// isEmpty reports whether v is a list, a map or an object without anything in it.
func isEmpty(v any) bool {
	o, isObject := members(v)
	list, isList := v.([]any)
	return isObject && len(o) == 0 || isList && len(list) == 0
}

func key(name string) string {
	for _, r := range name {
		if r != '_' && (r < 'a' || r > 'z') {
			return scalar(name)
		}
	}
	if name == "" || slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, name) {
		return scalar(name)
	}
	return name
}
