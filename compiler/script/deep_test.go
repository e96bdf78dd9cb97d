package script_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/script"
)

// TestDeepSources: the deepest source within the bounds leaves the process alive.
// Without the bounds the first of them ended it.
func TestDeepSources(t *testing.T) {
	for name, c := range map[string]struct{ before, unit, after string }{
		"blocks":      {"", "{", ""},
		"parentheses": {"let a=", "(", ""},
		"members":     {"export let a=b", ".b", ""},
		"functions":   {"export let a=", "a=>", "1"},
		"new":         {"export let a=", "new ", "b"},
	} {
		for _, n := range []int{script.MaxOpenings - 64, (script.MaxFile - 200) / len(c.unit)} {
			source := allowing + c.before + strings.Repeat(c.unit, n) + c.after
			if len(source) > script.MaxFile {
				continue
			}
			began := time.Now()
			_, err := script.Compile(t.Context(), os.DirFS(folder(t, map[string]string{"policy.ts": source})))
			t.Logf("%s, %d deep: %v", name, n, time.Since(began).Round(time.Millisecond))
			if err == nil && strings.ContainsAny(c.unit, "([{!~=") && n > script.MaxOpenings {
				t.Errorf("%s, %d deep: taken", name, n)
			}
		}
	}
}
