package regoindex

import "testing"

// TestCases has what a random policy seldom is.
func TestCases(t *testing.T) {
	const v0, v1 = true, false
	for _, tc := range []struct {
		name   string
		v0     bool
		policy string
		inputs []string
	}{
		{"a member is read again behind a with", v1, `allow if { some x in input.list; input.k == x with input.k as x; input.k == "b" }`,
			[]string{`{"list": ["a", "b"], "k": "b"}`, `{"list": ["b"], "k": "a"}`}},
		{"the key of a number", v1, "allow if input.k == 1\nallow if input.k == 2.5\nallow if input.k == 100\nallow if input.k == -1",
			[]string{`{"k": 1.0}`, `{"k": "1"}`, `{"k": 1e0}`, `{"k": 25e-1}`, `{"k": 1e2}`, `{"k": -1.0}`, `{"k": true}`, `{"k": 10000000000000000000000000000000}`}},
		{"minus nought", v1, "allow if input.k == 0\nallow if input.k == 1\nallow if input.k == 2", []string{`{"k": -0}`, `{"k": -0.0}`, `{"k": 0.0}`, `{"k": 0e5}`}},
		{"beyond a float", v1, "allow if input.k == 9007199254740993\nallow if input.k == 1\nallow if input.k == 9223372036854775807\nallow if input.k == 9223372036854775809",
			[]string{`{"k": 9007199254740992}`, `{"k": 9007199254740993}`, `{"k": 9223372036854775807}`, `{"k": 9223372036854775809}`, `{"k": 9223372036854775810}`}},
		{"conflict", v1, "value := 1 if input.k == \"a\"\nvalue := 2 if input.k == \"a\"\nvalue := 2 if input.k == \"b\"\nvalue := 3 if input.j == 1",
			[]string{`{"k": "a"}`, `{"k": "b"}`, `{"k": "b", "j": 1}`, `{"k": "c"}`}},
		{"false is defined", v1, "allow := false if input.k == \"a\"\nallow := false if input.k == \"b\"\nallow := false if input.k == \"c\"\nother if not allow\nundefined if allow == false",
			[]string{`{"k": "a"}`, `{"k": "d"}`}},
		{"mocked function", v1, "f(\"a\") := 1\nf(\"b\") := 2\nf(\"c\") := 3\ng(_) := 9\nallow := f(input.k)\nother := x if x := f(input.k) with f as g\nmore := x if x := f(input.k) with f as 7",
			[]string{`{"k": "a"}`, `{"k": "d"}`, `{}`}},
		{"mocked document", v1, "h if input.k == 1\nh if input.k == 2\nh if input.k == 3\nallow if h with input as {\"k\": 3}\nother if h with data.p.h as false\nmore if h with input.k as 2",
			[]string{`{"k": 1}`, `{}`, `null`, `[]`}},
		{"strings that begin alike", v1, "allow if input.k == \"\"\nallow if input.k == \"a\"\nallow if input.k == \"a\\u0000b\"\nallow if input.k == \"ä\"",
			[]string{`{"k": ""}`, `{"k": "a\u0000b"}`, `{"k": "a\u0000"}`, `{"k": "ä"}`, `{"k": "A"}`}},
		{"v0", v0, "default allow = false\nallow { input.k == \"a\" }\nallow { input.k == \"b\" }\nallow { \"c\" = input.k }\ns[x] { x := input.k; x == \"a\" }\nf(\"a\") = 1\nf(\"b\") = 2\nf(\"c\") = 3 { true }\ny = f(input.k) { true } else = 4 { input.j }",
			[]string{`{"k": "a"}`, `{"k": "c"}`, `{"k": "d", "j": 1}`, `{}`}},
		{"whole data", v1, "allow if input.k == 1\nallow if input.k == 2\nallow if input.k == 3\nall := {k | some k, _ in data.q}", []string{`{"k": 1}`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr, err := load(t.Context(), newEngine(t), "package p\n\n"+tc.policy+"\n", "{}", "p", tc.v0)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.close(t.Context())
			for _, input := range tc.inputs {
				if same, err := tr.compare(t.Context(), input); err != nil || !same {
					t.Errorf("input %s: the same as OPA's evaluator %v: %v", input, same, err)
				}
			}
		})
	}
}
