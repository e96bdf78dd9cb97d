package regoindex

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator writes random policies of what an index looks at, and inputs for them.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) *generator {
	return &generator{rand.New(rand.NewPCG(seed, 0x686f6c64))}
}

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// constants are written alike in Rego and in JSON.
var constants = []string{`"a"`, `"b"`, `"c"`, `"d"`, `"1"`, `""`, `1`, `1.0`, `2.5`, `2`, `100`, `0`, `9007199254740993`, `9007199254740992`, `true`, `false`, `null`}

// rest are values that an index has no place for.
var rest = []string{`[1]`, `["a"]`, `{"a": 1}`, `[]`, `{}`, `1e2`, `100.0`, `0.25e1`, `-0`, `2.50`}

// scalar prefers the first few, so that definitions share and miss them.
func (g *generator) scalar() string {
	if g.IntN(3) > 0 {
		return constants[g.IntN(4)]
	}
	return pick(g, constants...)
}

func (g *generator) ref() string {
	return pick(g, "input.k", "input.k", "input.k", "input.j", "input.n.m", "input.n.m.o", "data.cfg.mode", `input["k"]`)
}

func (g *generator) scalars(open, end string) string {
	var all []string
	for range 1 + g.IntN(4) {
		all = append(all, g.scalar())
	}
	return open + strings.Join(all, ", ") + end
}

// test is one expression of a body.
func (g *generator) test() string {
	switch g.IntN(21) {
	case 0, 1, 2, 3, 4:
		return g.ref() + " == " + g.scalar()
	case 5:
		return g.scalar() + " == " + g.ref()
	case 6:
		return g.ref() + " in " + g.scalars("{", "}")
	case 7:
		return g.ref() + " in " + g.scalars("[", "]")
	case 8:
		return fmt.Sprintf("some x%d in %s; %s == x%[1]d", g.IntN(1000), g.scalars("{", "}"), g.ref())
	case 9:
		return g.ref() + " != " + g.scalar()
	case 10:
		return "not " + g.ref() + " == " + g.scalar()
	case 11:
		return "input.list[_] == " + g.scalar()
	case 12:
		return fmt.Sprintf("some b%d in data.bindings; b%[1]d.user == input.user; b%[1]d.role == %s", g.IntN(1000), g.scalar())
	case 13:
		return fmt.Sprintf("f(%s, %s) == %s", pick(g, "input.k", g.scalar()), g.scalar(), g.scalar())
	case 14:
		return "h with " + pick(g, "input.k", "input.n.m", "data.cfg.mode") + " as " + g.scalar()
	case 15:
		return "every e in input.list { e != " + g.scalar() + " }"
	case 16:
		return g.ref() + pick(g, "", " == input.j", " == [1]", " > 1")
	case 17:
		return pick(g, "h with input as {}", "h with data.cfg as {}", "f(1, 2) with f as 3", "not h", "h", "g(input.k) == 1")
	case 18, 19:
		x := fmt.Sprintf("n%d", g.IntN(1000))
		return pick(g, "data.q["+x+"] == "+g.scalar()+"; "+g.ref()+" == "+x, "data.q[input.j] == "+g.scalar(), "data.q["+x+"]; "+g.test(),
			g.ref()+" in {z | data.q[z]}", "some "+x+" in "+g.scalars("{", "}")+"; data.q["+x+"] == input.j")
	default:
		return fmt.Sprintf("r%d := %s; %s in r%[1]d", g.IntN(1000), pick(g, g.scalars("{", "}"), "{y | some y in input.list}", `{y | some y in ["a", "b"]} | {"c"}`), g.ref())
	}
}

func (g *generator) body(least, most int) string {
	var all []string
	for range least + g.IntN(most-least+1) {
		all = append(all, g.test())
	}
	if len(all) == 0 {
		all = []string{"true"}
	}
	return "if { " + strings.Join(all, "; ") + " }"
}

// policy is a module of package p. Each kind of document has from none to a
// dozen definitions, in any order.
func (g *generator) policy() string {
	var rules []string
	add := func(most int, rule func() string) {
		for range g.IntN(most + 1) {
			rules = append(rules, rule())
		}
	}
	add(12, func() string { return "allow " + g.body(1, 3) })
	add(10, func() string { return "value := " + pick(g, "1", "1", "1", `"x"`, "input.j") + " " + g.body(1, 3) })
	add(10, func() string { return "s contains " + pick(g, g.scalar(), "input.k", "input.j") + " " + g.body(1, 2) })
	add(10, func() string {
		return fmt.Sprintf("o[%s] := %s %s", pick(g, `"a"`, `"b"`, "input.j"), pick(g, "1", "1", "2"), g.body(1, 2))
	})
	add(2, g.chain)
	add(6, func() string { return fmt.Sprintf("nested.%s := 1 %s", pick(g, "a", "b"), g.body(1, 2)) })
	add(4, func() string { return fmt.Sprintf("deep[input.j].%s := 1 %s", pick(g, "a", "b"), g.body(1, 2)) })
	g.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	rules = append(rules, g.functions()...)
	if g.IntN(2) == 0 {
		rules = append(rules, "default allow := "+pick(g, "false", "true"))
	}
	return "package p\n\n" + strings.Join(rules, "\n\n") + "\n"
}

func (g *generator) chain() string {
	var b strings.Builder
	b.WriteString("chained := " + g.scalar() + " " + g.body(1, 2))
	for range g.IntN(9) {
		body := g.body(0, 1)
		if g.IntN(3) > 0 {
			body = "if input.k == " + g.scalar()
		}
		b.WriteString(" else := " + pick(g, g.scalar(), "input.j") + " " + body)
	}
	return b.String()
}

// other is a package beside, with documents both of rules and of data.
func other(v0 bool) string {
	if v0 {
		return "package q\n\nb = 1\n"
	}
	return "package q\n\na := 1 if input.k == \"a\"\n\nb := \"b\"\n\nd := 2 if input.j\n"
}

// functions never call rules that call them.
func (g *generator) functions() []string {
	plain := func() string {
		return "if { " + g.ref() + " == " + g.scalar() + "; " + g.ref() + " != " + g.scalar() + " }"
	}
	rules := []string{"h " + plain(), "h " + plain(), "f(0, 0) := 0", "g(0) := 0"}
	for range g.IntN(8) {
		rules = append(rules, "h "+plain())
	}
	for range g.IntN(8) {
		rules = append(rules, fmt.Sprintf("f(%s, %s) := %s %s", pick(g, g.scalar(), "x"), pick(g, g.scalar(), "_", "[_, 1]"), pick(g, "1", "1", "true", "input.j"), plain()))
	}
	for range g.IntN(6) {
		rules = append(rules, fmt.Sprintf("g(x) := %s if x == %s else := 2 if x == %s else := 3 if x == %s else := 4 if x == %s", pick(g, "1", "1", "x"), g.scalar(), g.scalar(), g.scalar(), g.scalar()))
	}
	return rules
}

func (g *generator) data() string {
	return fmt.Sprintf(`{"cfg": {"mode": %s}, "bindings": [{"user": "u", "role": %s}, {"user": "v", "role": "a"}, {"user": "u", "role": "b"}], "q": {"c": "a", "1": 1}}`, g.scalar(), g.scalar())
}

func (g *generator) any() string {
	if g.IntN(6) == 0 {
		return pick(g, rest...)
	}
	return g.scalar()
}

func (g *generator) input() string {
	if g.IntN(12) == 0 {
		return pick(g, "null", "1", `"a"`, "[]", "{}")
	}
	var members []string
	add := func(key string, value func() string) {
		if g.IntN(8) > 0 {
			members = append(members, fmt.Sprintf("%q: %s", key, value()))
		}
	}
	add("k", g.any)
	add("j", g.any)
	add("n", func() string { return pick(g, `{"m": `+g.any()+`}`, `{"m": {"o": `+g.any()+`}}`, g.any()) })
	add("list", func() string { return g.scalars("[", "]") })
	add("user", func() string { return pick(g, `"u"`, `"v"`, `"w"`, g.any()) })
	return "{" + strings.Join(members, ", ") + "}"
}
