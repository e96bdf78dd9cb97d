package schema

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// pattern is a regular expression that knows its size.
type pattern struct {
	*regexp.Regexp
	size int
}

// compilePattern refuses what RE2 does not know, and what would become large:
// a repetition is as long as what it repeats, that many times.
func compilePattern(text string) (jsonschema.Regexp, error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	size := instructions(tree)
	if size > MaxPattern {
		return nil, fmt.Errorf("%d instructions, at most %d: repeat less", size, MaxPattern)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	return &pattern{Regexp: re, size: size}, nil
}

func sizeOf(re jsonschema.Regexp) int {
	if p, ok := re.(*pattern); ok {
		return p.size
	}
	return 0
}

// instructions is about what the tree compiles to; beyond MaxPattern it is not
// exact.
func instructions(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)/2
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, 1<<30)
}
