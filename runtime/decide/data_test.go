package decide_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A declared is a module with entry points; one without has none of its own.
type declared struct {
	module answers
	paths  []string
}

func dataPoint(t *testing.T, modules ...declared) *decide.Point {
	t.Helper()
	p := &decide.Point{Name: "custom"}
	for _, m := range modules {
		one := point(t, m.module).Modules[0]
		for i, path := range m.paths {
			if one.Entrypoints == nil {
				one.Entrypoints = map[string]int32{}
			}
			one.Entrypoints[path] = int32(i)
		}
		p.Modules = append(p.Modules, one)
	}
	return p
}

func TestData(t *testing.T) {
	a := []string{"a"}
	for _, c := range []struct {
		name    string
		modules []declared
		path    []string
		json    string // "" for undefined
		verdict policy.Verdict
		failed  bool
	}{
		{"true", []declared{{says(`true`), a}}, a, "true", policy.Allow, false},
		{"false", []declared{{says(`false`), a}}, a, "false", policy.Deny, false},
		{"any value is a denial with a value", []declared{{says(`{"n": 1.50}`), a}}, a, `{"n": 1.50}`, policy.Deny, false},
		{"below", []declared{{says(`{"n": [1, {"allow": true}]}`), a}}, []string{"a", "n", "1"}, `{"allow": true}`, policy.Allow, false},
		{"nothing below", []declared{{says(`{"n": 1}`), a}}, []string{"a", "x"}, "", policy.Deny, false},
		{"no step into a list by name", []declared{{says(`["x"]`), a}}, []string{"a", "x"}, "", policy.Deny, false},
		{"no decision for all its names", []declared{{says(`{"allow": true, "reasons": ["text"]}`), a}}, a, `{"allow": true, "reasons": ["text"]}`, policy.Deny, false},
		{"other allows", []declared{{says(`true`), a}, {says(`true`), nil}}, a, "true", policy.Allow, false},
		{"other denies", []declared{{says(`"any"`), a}, {says(`false`), nil}}, a, "", policy.Deny, false},
		{"other traps", []declared{{says(`true`), a}, {traps(abi.TrapFuel), nil}}, a, "", policy.Deny, false},
		{"two agree", []declared{{says(`true`), a}, {says(`true`), a}}, a, "true", policy.Allow, false},
		{"two differ", []declared{{says(`true`), a}, {says(`1`), a}}, a, "", policy.Deny, false},
		{"traps", []declared{{traps(abi.TrapAbort), a}}, a, "", policy.Deny, true},
	} {
		out, doc := dataPoint(t, c.modules...).Data(request(t), c.path, 0)
		if string(doc.JSON) != c.json || out.Decision.Verdict != c.verdict || (doc.Failure != "") != c.failed {
			t.Errorf("%s: %s, %+v", c.name, doc.JSON, out.Decision)
		}
	}
}

// The longest entry point at or above the path names the point.
func TestPointOf(t *testing.T) {
	s := &decide.Set{Points: map[string]*decide.Point{
		"z": dataPoint(t, declared{says(`1`), []string{"a", "a/b/c"}}),
		"y": dataPoint(t, declared{says(`1`), []string{"a"}}, declared{says(`1`), []string{"a/b"}}),
		"x": dataPoint(t, declared{says(`1`), []string{"q%2Fr"}}),
	}}
	for name, p := range s.Points {
		p.Name = name
	}
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{"a"}, "y"}, {[]string{"a", "x"}, "y"}, {[]string{"a", "b"}, "y"}, {[]string{"a", "b", "c", "d"}, "z"},
		{[]string{"q/r", "s"}, "x"}, {[]string{"q", "r"}, ""}, {[]string{"b"}, ""}, {nil, ""},
	} {
		got := ""
		if p := s.PointOf(c.path); p != nil {
			got = p.Name
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.path, got, c.want)
		}
	}
}
