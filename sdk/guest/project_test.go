package guest_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/guest"
)

// TestProjects: every language has every example, and a project says what it is,
// has what it names and nothing of ours that an author has no use for.
func TestProjects(t *testing.T) {
	for _, l := range guest.Languages() {
		for _, example := range l.Examples() {
			files, err := l.Project(example, "my-policy")
			if err != nil {
				t.Fatalf("%s, %s: %v", l.Name, example, err)
			}
			for _, want := range []string{l.Source, "holdfast.yaml", "params.schema.json", "vectors.yaml", "README.md"} {
				if len(files[want]) == 0 {
					t.Errorf("%s, %s: no %s", l.Name, example, want)
				}
			}
			if config := string(files["holdfast.yaml"]); !strings.HasPrefix(config, "language: "+l.Config+"\nname: my-policy\n") || strings.Contains(config, "\nname: "+example) {
				t.Errorf("%s, %s: %s", l.Name, example, config)
			}
			checkNames(t, l, files)
			again, err := l.Project(example, "my-policy")
			if err != nil || !maps.EqualFunc(files, again, bytes.Equal) {
				t.Errorf("%s, %s: another time, another project", l.Name, example)
			}
		}
	}
}

// checkNames wants every file in the README, and no file that is not the author's.
func checkNames(t *testing.T, l guest.Language, files map[string][]byte) {
	t.Helper()
	for name := range files {
		folder, _, nested := strings.Cut(name, "/")
		if nested {
			folder += "/"
		}
		if name != "README.md" && !bytes.Contains(files["README.md"], []byte("`"+folder+"`")) {
			t.Errorf("%s: the README does not tell of %s", l.Name, name)
		}
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".wasm") || name == "policy.yaml" {
			t.Errorf("%s: %s in a project", l.Name, name)
		}
	}
}

// TestEveryLanguageHasEveryExample, but C++, which shows that C's SDK serves it.
func TestEveryLanguageHasEveryExample(t *testing.T) {
	for _, l := range guest.Languages() {
		want := guest.Examples()
		if l.Name == "c++" {
			want = []string{guest.DefaultExample}
		}
		if got := l.Examples(); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", l.Name, got, want)
		}
	}
}

func TestUnknownExample(t *testing.T) {
	l, ok := guest.Find("go")
	if !ok {
		t.Fatal("no Go")
	}
	for _, example := range []string{"", "nope", "..", "spend-cap/", "../go/guest"} {
		if files, err := l.Project(example, "p"); err == nil || !strings.Contains(err.Error(), "want tool-authz, spend-cap, residency") {
			t.Errorf("%q: %d files, %v", example, len(files), err)
		}
	}
	if _, ok := guest.Find("cobol"); ok {
		t.Error("cobol")
	}
}
