package yamlfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// read parses text as the file a.yaml and hands its root to use.
func read(text string, use func(f *File, root *Node) error) error {
	f := &File{Name: "a.yaml"}
	root, err := f.Parse([]byte(text))
	if err != nil {
		return err
	}
	return use(f, root)
}

func TestScalars(t *testing.T) {
	var u uint64
	var d time.Duration
	var at time.Time
	var share uint64
	var words map[string]string
	kinds := map[string]func(f *File, n *Node) (any, error){
		"uint": func(f *File, n *Node) (any, error) { err := f.Uint(n, &u, 1, 100); return u, err },
		"duration": func(f *File, n *Node) (any, error) {
			err := f.Duration(n, &d, time.Second, time.Second, 240*time.Hour)
			return d, err
		},
		"share": func(f *File, n *Node) (any, error) { err := f.Share(n, &share); return share, err },
		"time":  func(f *File, n *Node) (any, error) { err := f.Time(n, &at); return at.Unix(), err },
		"words": func(f *File, n *Node) (any, error) { err := f.Words(n, &words); return fmt.Sprint(words), err },
	}
	for _, c := range []struct{ kind, text, want string }{
		{"uint", "7", "7"}, {"uint", "100", "100"}, {"uint", "0", ""}, {"uint", "101", ""}, {"uint", "-1", ""}, {"uint", "1.0", ""}, {"uint", "'7'", ""},
		{"uint", "0x10", ""}, {"uint", "1_0", ""}, {"uint", "99999999999999999999", ""}, {"uint", "[7]", ""},
		{"duration", "90s", "1m30s"}, {"duration", "1h30m", "1h30m0s"}, {"duration", "7d", "168h0m0s"}, {"duration", "10d", "240h0m0s"},
		{"duration", "11d", ""}, {"duration", "0s", ""}, {"duration", "-1s", ""}, {"duration", "1500ms", ""}, {"duration", "60", ""}, {"duration", "d", ""},
		{"duration", "-1d", ""}, {"duration", "1.5d", ""}, {"duration", "99999999d", ""}, {"duration", "{}", ""},
		{"share", "1%", "10000"}, {"share", "0.0001%", "1"}, {"share", "100%", "1000000"}, {"share", ".5%", "5000"}, {"share", "0%", ""}, {"share", "100.0001%", ""},
		{"share", "0.00001%", ""}, {"share", "1", ""}, {"share", "1e1%", ""}, {"share", "-1%", ""}, {"share", "1/3%", ""}, {"share", "'%'", ""}, {"share", "1.2.3%", ""},
		{"time", "2026-12-01T08:00:00Z", "1796112000"}, {"time", "'2026-12-01T09:00:00+01:00'", "1796112000"}, {"time", "2026-12-01", ""}, {"time", "1796112000", ""}, {"time", "1960-01-01T00:00:00Z", ""},
		{"words", "{a: b, c: ''}", "map[a:b c:]"}, {"words", "{a: 1}", ""}, {"words", "{a: b, a: c}", ""}, {"words", "a", ""},
	} {
		var got any
		err := read("x: "+c.text, func(f *File, root *Node) error {
			return f.Members(root, func(_, n *Node) (err error) {
				got, err = kinds[c.kind](f, n)
				return err
			})
		})
		var at *Error
		switch {
		case c.want == "" && (!errors.As(err, &at) || at.Line != 1 || at.Col == 0):
			t.Errorf("%s %q: %v, %v", c.kind, c.text, got, err)
		case c.want != "" && (err != nil || fmt.Sprint(got) != c.want):
			t.Errorf("%s %q: %v, %v", c.kind, c.text, got, err)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                       "a.yaml:1:1: did not find expected node content",
		"a: 1\nb: c: d":              "a.yaml:2:1: mapping values are not allowed in this context",
		"a: 1\n---\nb: 2":            "a.yaml: more than one document",
		"\x00":                       "a.yaml: ",
		strings.Repeat("x", 4<<20+1): "a.yaml: 4194305 bytes, at most 4194304",
		"a: &a [1]\nb: *a\na: *a":    `a.yaml:3:1: "a" twice`,
		"<<: {a: 1}":                 "a.yaml:1:1: a key must be a word",
		"? [a]\n: b":                 "a.yaml:1:3: a key must be a word",
	} {
		err := read(text, func(f *File, root *Node) error { return f.Members(root, func(_, _ *Node) error { return nil }) })
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if root, err := (&File{Name: "a.yaml"}).Parse([]byte("# nothing\n")); root != nil || err != nil {
		t.Errorf("%v, %v", root, err)
	}
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	err := read(bomb.String(), func(f *File, root *Node) error { _, err := f.Value(root); return err })
	if err == nil || !strings.Contains(err.Error(), "aliases followed") {
		t.Errorf("aliases of aliases: %v", err)
	}
}
