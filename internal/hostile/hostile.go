// Package hostile is the corpus of modules that try to hurt whoever reads,
// compiles or runs them. Its test holds each against the exact outcome that
// testdata/hostile/corpus.txt states.
package hostile

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	corpus "github.com/holdfast-policy/holdfast/testdata/hostile"
)

// A Case is one hostile module.
type Case struct {
	Name  string
	Tries string // in words, behind "tries"
	Class wasm.Class
	ABI   abi.Kind
	// Outcome is the stage that stops the module and the exact reason: "scan:",
	// "compile:", "initialise:", "call:" or "output:"; "answers:" and the verdict
	// when what it tries has no effect.
	Outcome string
}

// Cases reads the index.
func Cases() ([]Case, error) {
	text, err := corpus.FS.ReadFile("corpus.txt")
	if err != nil {
		return nil, err
	}
	var cases []Case
	for stanza := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		c, err := parseCase(stanza)
		if err != nil {
			return nil, fmt.Errorf("corpus.txt: %s: %w", c.Name, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func parseCase(stanza string) (c Case, err error) {
	lines := strings.SplitN(stanza, "\n", 4)
	if c.Name = lines[0]; len(lines) != 4 {
		return c, fmt.Errorf("%d lines, want a name, tries, module and outcome", len(lines))
	}
	var ok [3]bool
	var module string
	c.Tries, ok[0] = strings.CutPrefix(lines[1], "  tries    ")
	module, ok[1] = strings.CutPrefix(lines[2], "  module   ")
	c.Outcome, ok[2] = strings.CutPrefix(lines[3], "  outcome  ")
	class, kind, both := strings.Cut(module, ", ")
	if ok != [3]bool{true, true, true} || !both {
		return c, fmt.Errorf("want the lines tries, module (class, ABI) and outcome")
	}
	c.ABI = abi.Kind(kind)
	c.Class, err = wasm.ParseClass(class)
	return c, err
}

// Format writes cases as Cases reads them.
func Format(cases []Case) []byte {
	var out bytes.Buffer
	for n, c := range cases {
		if n > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s\n  tries    %s\n  module   %s, %s\n  outcome  %s\n", c.Name, c.Tries, c.Class, c.ABI, c.Outcome)
	}
	return out.Bytes()
}

// Module returns the bytes of the case's module.
func (c Case) Module() ([]byte, error) {
	if make, ok := generated()[c.Name]; ok {
		return make(), nil
	}
	return corpus.FS.ReadFile(c.Name + ".wasm")
}
