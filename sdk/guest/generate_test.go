package guest_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
)

// variants are sets of parameters, laid over an example's own, that all languages
// must work with.
var variants = map[string][]map[string]any{
	"tool-authz": {nil, {"max_delegation": int64(0)}, {"max_delegation": int64(math.MaxInt64)}},
	"spend-cap": {
		nil,
		{"cap": int64(0), "approval_over": int64(0), "window_hours": int64(1)},
		{"cap": int64(math.MaxInt64), "approval_over": int64(math.MaxInt64), "window_hours": int64(8760)},
		{"currency": "Écu \u212a\U0001f600", "tools": []any{"", "pay", "größer", strings.Repeat("t", 300)}, "approval_over": int64(5000)},
		{"tools": []any{}, "currency": ""},
	},
	"residency": {
		nil,
		{"default_class": "nobody knows it", "routes": map[string]any{}},
		{"allowed": map[string]any{"personal": []any{"*", "eu"}, "health": []any{"*"}, "": []any{"", "ch"}, "public": []any{}}, "default_class": ""},
		{"routes": map[string]any{"eu": map[string]any{}, "ch": map[string]any{"a": int64(math.MinInt64), "list": []any{1.0, math.Copysign(0, -1), 1e300, nil, true, []any{}, map[string]any{"z": int64(-1), "é": "\u2028", "aa": 5e-324, "": false}}},
			"*": map[string]any{"x": int64(23)}, "us": map[string]any{strings.Repeat("k", 300): int64(math.MaxInt64)}}},
	},
}

// refused are parameters and data that Configure must not take.
var refused = map[string][]struct {
	params  map[string]any
	data    string
	without []string
}{
	"tool-authz": {
		{params: map[string]any{"max_delegation": int64(-1)}}, {params: map[string]any{"max_delegation": 2.5}}, {params: map[string]any{"max_delegation": "2"}},
		{without: []string{"max_delegation"}}, {data: `{}`}, {data: `[]`}, {data: `{"roles": {}, "users": []}`}, {data: `{"roles": {"a": "x"}, "users": {}}`},
		{data: `{"roles": {"a": [1]}, "users": {}}`}, {data: `{"roles": {}, "users": {"a": [null]}}`}, {data: `{"users": {}}`},
	},
	"spend-cap": {
		{params: map[string]any{"cap": int64(-1)}}, {params: map[string]any{"cap": 1.5}}, {params: map[string]any{"cap": nil}}, {without: []string{"cap"}},
		{params: map[string]any{"approval_over": "1"}}, {params: map[string]any{"currency": int64(1)}}, {without: []string{"currency"}},
		{params: map[string]any{"tools": "pay"}}, {params: map[string]any{"tools": []any{"pay", int64(1)}}}, {without: []string{"tools"}},
		{params: map[string]any{"window_hours": int64(0)}}, {params: map[string]any{"window_hours": int64(8761)}}, {params: map[string]any{"window_hours": 1.5}},
	},
	"residency": {
		{params: map[string]any{"default_class": nil}}, {without: []string{"default_class"}}, {params: map[string]any{"allowed": []any{}}}, {without: []string{"allowed"}},
		{params: map[string]any{"allowed": map[string]any{"a": "eu"}}}, {params: map[string]any{"allowed": map[string]any{"a": []any{"eu", nil}}}},
		{params: map[string]any{"routes": map[string]any{"eu": "x"}}}, {params: map[string]any{"routes": map[string]any{"eu": []any{}}}}, {without: []string{"routes"}},
	},
}

// lines are the verdicts and reasons of the tables in examples/README.md.
var lines = map[string][]string{
	"tool-authz": {"deny not_a_tool", "deny tool_name_invalid", "deny delegation_invalid", "deny delegation_too_deep", "deny tool_not_granted",
		"deny delegator_not_granted", "allow granted"},
	"spend-cap": {"allow not_a_payment", "deny amount_invalid", "deny currency_unknown", "deny spent_invalid", "deny window_invalid",
		"throttle over_cap", "deny over_cap", "require_approval needs_approval", "allow within_cap"},
	"residency": {"deny class_invalid", "deny class_unknown", "deny region_unknown", "allow in_region", "transform rerouted", "deny no_region"},
}

// full are requests in which every place that the example looks at is there, and
// places where those are. "1" is an index.
var (
	full = map[string]string{
		"tool-authz": `{"subject": {"type": "agent", "id": "cyd"}, "action": {"name": "a"}, "resource": {"type": "tool", "id": "search"}, "context": {"delegation": ["ada", "bo"]}}`,
		"spend-cap": `{"subject": {"type": "agent", "id": "ada"}, "action": {"name": "a"}, "resource": {"type": "tool", "id": "pay"},
			"context": {"arguments": {"amount": 249, "currency": "EUR"}, "spent": 900, "window_start": "2025-12-31T23:30:00Z"}}`,
		"residency": `{"subject": {"type": "user", "id": "ada", "properties": {"region": "eu"}}, "action": {"name": "a"}, "resource": {"type": "model", "id": "m", "properties": {"region": "us"}},
			"context": {"data_classes": ["public", "personal"]}}`,
	}
	places = map[string][][]string{
		"tool-authz": {{"subject", "id"}, {"resource", "id"}, {"resource", "type"}, {"context"}, {"context", "delegation"}, {"context", "delegation", "0"}, {"context", "delegation", "1"}},
		"spend-cap": {{"resource", "id"}, {"context"}, {"context", "arguments"}, {"context", "arguments", "amount"}, {"context", "arguments", "currency"}, {"context", "spent"},
			{"context", "window_start"}},
		"residency": {{"context"}, {"context", "data_classes"}, {"context", "data_classes", "0"}, {"context", "data_classes", "1"}, {"resource", "properties"},
			{"resource", "properties", "region"}, {"subject", "properties"}, {"subject", "properties", "region"}},
	}
)

// A literal is JSON as it stands.
type literal string

func (l literal) MarshalJSON() ([]byte, error) { return []byte(l), nil }

// A maker makes requests out of those of golden vectors: members dropped, put in
// the place of others, of another kind, at the edges.
type maker struct {
	t      *testing.T
	random *rand.Rand
	seeds  [][]byte
	values []any // what is put in the place of others
}

func newMaker(t *testing.T, random *rand.Rand, list []bundle.Vector) *maker {
	m := &maker{t: t, random: random, values: slices.Clone(oddValues)}
	for _, v := range list {
		m.seeds = append(m.seeds, v.Request)
		m.collect(m.parse(v.Request))
	}
	return m
}

// oddValues are of every kind and at the edges of their kinds.
var oddValues = func() []any {
	var out []any
	for _, number := range []string{
		"0", "1", "2", "-1", "23", "24", "249", "250", "251", "255", "256", "999", "1000", "1001", "65535", "65536", "4294967295", "4294967296",
		"9007199254740991", "9007199254740992", "9007199254740993", "9223372036854775806", "9223372036854775807", "-9223372036854775808",
		"0.0", "-0.0", "2.0", "200.0", "2.5", "1e2", "1E-7", "1e300", "5e-324", "9223372036854775808", "-9223372036854775809", "0.1", "65504.0", "1000.0", "1e15", "1e21",
	} {
		out = append(out, literal(number))
	}
	for _, text := range []string{
		"", "*", "pay", "PAY", "transfer", "EUR", "eur", "eUr", "EUR ", "EURO", "ÉCU \u212a\U0001f600", "écu \u212a\U0001f600", "Écu K\U0001f600", "ada", "cyd", "dee", "eve", "search", "read_file", "operator", "users", "eu", "ch", "us",
		"personal", "public", "health", "secret", "__proto__", "constructor", "toString", "é", "e\u0301", "😀", "\u0000", "a\u0000b", "\u2028", "\ufeff", "\ufffd", "\"\\\n\t", "tool", "1", "true", "null",
		strings.Repeat("a", 23), strings.Repeat("a", 24), strings.Repeat("b", 64), strings.Repeat("b", 65), strings.Repeat("x", 255), strings.Repeat("é", 128), strings.Repeat("y", 4096), strings.Repeat("€", 3000), strings.Repeat("z", 20_000),
	} {
		out = append(out, text)
	}
	for range 2 {
		out = append(out, nil, true, false, []any{}, map[string]any{})
	}
	deep := any("bottom")
	for range 20 {
		deep = []any{deep, map[string]any{"down": deep}}
		if len(out)%3 == 0 {
			deep = []any{deep}
		}
		deep = deep.([]any)[0]
		deep = map[string]any{"d": deep}
	}
	out = append(out, deep, []any{"ada", "bo"}, []any{"cyd"}, []any{"cyd", "dee"}, []any{literal("7")}, []any{nil, "ada"}, []any{"personal", "public"}, []any{"public", "health"}, []any{"health", "health"},
		map[string]any{"region": "eu"}, map[string]any{"region": "us"}, map[string]any{"region": "ch"}, map[string]any{"amount": literal("5"), "currency": "EUR"}, map[string]any{"amount": literal("500"), "currency": "eur"})
	return append(out, edgeTimes()...)
}()

// edgeTimes are near each edge that a time has: of the vectors' clock, of windows,
// of months and years, and of the form.
func edgeTimes() []any {
	var out []any
	now := time.Unix(0, vectors.Now).UTC()
	for _, hours := range []int{0, 1, 23, 24, 25, 8759, 8760, 8761} {
		for _, by := range []time.Duration{-time.Second, -1, 0, 1, time.Second} {
			at := now.Add(-time.Duration(hours)*time.Hour + by)
			out = append(out, at.Format(time.RFC3339Nano), at.In(time.FixedZone("", 3600*5+1800)).Format(time.RFC3339Nano), at.In(time.FixedZone("", -86340)).Format("2006-01-02t15:04:05.000000000Z07:00"))
		}
	}
	for _, text := range []string{
		"1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+23:59", "2200-12-31T23:59:59.999999999-23:59", "2201-01-01T00:00:00Z",
		"2024-02-29T12:00:00Z", "2023-02-29T12:00:00Z", "2100-02-29T12:00:00Z", "2000-02-29T12:00:00Z", "2025-04-31T12:00:00Z", "2025-12-32T12:00:00Z", "2025-00-10T12:00:00Z", "2025-13-10T12:00:00Z", "2025-12-00T12:00:00Z",
		"2025-12-31T24:00:00Z", "2025-12-31T23:60:00Z", "2025-12-31T23:59:60Z", "2025-12-31T12:00:00", "2025-12-31T12:00:00z", "2025-12-31 12:00:00Z", "2025-12-31_12:00:00Z", "2025-12-31T12:00:00.Z",
		"2025-12-31T12:00:00.1Z", "2025-12-31T12:00:00.123456789Z", "2025-12-31T12:00:00.1234567890Z", "2025-12-31T12:00:00,1Z", "2025-12-31T12:00:00+24:00", "2025-12-31T12:00:00+00:60",
		"2025-12-31T12:00:00-0000", "2025-12-31T12:00:00-00", "2025-12-31T12:00:00-00:00", "2025-12-31T12:00Z", "2025-12-31T12:00:00ZZ", " 2025-12-31T12:00:00Z", "2025-12-31T12:00:00Z ", "+025-12-31T12:00:00Z", "2025-1-31T12:00:000Z",
		"2025-12-3\u0661T12:00:00Z", "2025-12-31T12:00:00é", "2025-12-31T12:00:0\u0000Z", "20251231T120000Z", "2025-12-31", "-025-12-31T12:00:00Z", "2025-12-31T-1:00:00Z", "2025-12-31T12:00:00.+5Z", "2025-12-31T12:00:00+-1:00",
	} {
		out = append(out, text)
	}
	return out
}

func (m *maker) parse(doc []byte) any {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		m.t.Fatal(err)
	}
	return v
}

// collect takes a request's values for the place of others.
func (m *maker) collect(v any) {
	m.values = append(m.values, v)
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			m.collect(v[k])
		}
	case []any:
		for _, item := range v {
			m.collect(item)
		}
	}
}

// with is a request with a value in one place.
func (m *maker) with(request string, place []string, v any) []byte {
	root := m.parse([]byte(request))
	at := root
	for _, step := range place[:len(place)-1] {
		at = at.(map[string]any)[step]
	}
	last := place[len(place)-1]
	switch at := at.(type) {
	case map[string]any:
		at[last] = v
	case []any:
		at[int(last[0]-'0')] = v
	}
	out, err := json.Marshal(root)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// request is one of the vectors', changed up to four times.
func (m *maker) request() []byte {
	v := m.parse(m.seeds[m.random.IntN(len(m.seeds))])
	for range 1 + m.random.IntN(4) {
		v = m.changeRequest(v)
	}
	out, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// changeRequest mostly changes what a request may have anything in: changes
// elsewhere seldom leave a request.
func (m *maker) changeRequest(v any) any {
	root, ok := v.(map[string]any)
	within := []string{"context", "context", "context", "subject", "resource", ""}[m.random.IntN(6)]
	if !ok || within == "" {
		return m.change(v)
	}
	if root[within] == nil {
		root[within] = map[string]any{}
	}
	root[within] = m.change(root[within])
	return v
}

// instant is the vectors' clock, or near it.
func (m *maker) instant() int64 {
	by := []time.Duration{0, 0, 0, 1, -1, time.Second, time.Hour, 24*time.Hour - 1, -24 * time.Hour, 50 * 365 * 24 * time.Hour, -55 * 365 * 24 * time.Hour}
	return vectors.Now + int64(by[m.random.IntN(len(by))])
}

// names are members that the examples look at, for where there is none.
var names = []string{"arguments", "amount", "currency", "spent", "window_start", "delegation", "data_classes", "region", "properties", "id", "type", "context", "unknown", "", "é", strings.Repeat("n", 300)}

// change changes one place of a value.
func (m *maker) change(v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if len(keys) == 0 || m.random.IntN(8) == 0 {
			v[names[m.random.IntN(len(names))]] = m.value()
			return v
		}
		k := keys[m.random.IntN(len(keys))]
		if m.random.IntN(12) == 0 {
			delete(v, k)
		} else {
			v[k] = m.change(v[k])
		}
		return v
	case []any:
		if len(v) == 0 || m.random.IntN(3) == 0 {
			return append(v, m.value())
		}
		i := m.random.IntN(len(v))
		if m.random.IntN(4) == 0 {
			return slices.Delete(v, i, i+1)
		}
		v[i] = m.change(v[i])
		return v
	}
	return m.value()
}

func (m *maker) value() any {
	v := m.values[m.random.IntN(len(m.values))]
	raw, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.parse(raw) // a copy: what is made is changed again
}
