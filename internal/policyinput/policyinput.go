// Package policyinput is the corpus of signed documents that nobody may believe.
// Its test makes them from fixed keys, offers each to a node that has a release
// in force, and holds it against the exact refusal that
// testdata/policy-input/corpus.txt states.
package policyinput

import (
	"bytes"
	"fmt"
	"strings"

	corpus "github.com/holdfast-policy/holdfast/testdata/policy-input"
)

// A Case is one document.
type Case struct {
	Name  string
	Tries string // in words, behind "tries"
	// Asks is who is asked: "node" is a node with a release in force; "next" the
	// trust root before; "publish" the rule of publishing; a kind of document the
	// function that opens it.
	Asks string
	// Refusal is why the document is not believed, exactly.
	Refusal string
}

// Cases reads the index.
func Cases() ([]Case, error) {
	text, err := corpus.FS.ReadFile("corpus.txt")
	if err != nil {
		return nil, err
	}
	var cases []Case
	for stanza := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		c, err := parse(stanza)
		if err != nil {
			return nil, fmt.Errorf("corpus.txt: %s: %w", c.Name, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func parse(stanza string) (c Case, err error) {
	lines := strings.Split(stanza, "\n")
	if c.Name = lines[0]; len(lines) != 4 {
		return c, fmt.Errorf("%d lines, want a name, tries, asks and refusal", len(lines))
	}
	for i, into := range []*string{&c.Tries, &c.Asks, &c.Refusal} {
		word := []string{"tries", "asks", "refusal"}[i]
		text, ok := strings.CutPrefix(lines[i+1], fmt.Sprintf("  %-8s", word))
		if !ok {
			return c, fmt.Errorf("line %d is not %s", i+2, word)
		}
		*into = text
	}
	return c, nil
}

// Format writes cases as Cases reads them.
func Format(cases []Case) []byte {
	var out bytes.Buffer
	for n, c := range cases {
		if n > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s\n  tries   %s\n  asks    %s\n  refusal %s\n", c.Name, c.Tries, c.Asks, c.Refusal)
	}
	return out.Bytes()
}

// Document returns the case's bytes.
func (c Case) Document() ([]byte, error) { return corpus.FS.ReadFile(c.Name + ".dsse") }
