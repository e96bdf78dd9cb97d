package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/guest"
)

// One policy in one language goes through everything that the table needs; the
// committed module is found, passes its vectors and answers.
func TestLanguages(t *testing.T) {
	was := modulesOf
	modulesOf = filepath.Join("..", "sdk", "guest")
	defer func() { modulesOf = was }()
	host, err := loader.NewHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(context.Background())
	rust, ok := guest.Find("rust")
	if !ok {
		t.Fatal("no rust")
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("RUSTC", "")
	t.Setenv("HOME", t.TempDir())
	e := &entrant{language: rust, example: "spend-cap"}
	if err := e.prepare(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if err := e.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	b := &bench{out: &out, results: t.TempDir()}
	b.printLanguages([]*entrant{e})
	if err := b.writeLanguages([]*entrant{e}); err != nil {
		t.Fatal(err)
	}
	if e.lines < 20 || e.fuel[0] == 0 || e.fuel[1] < e.fuel[0] || len(e.requests) < 20 || !strings.Contains(out.String(), "\n  Rust ") {
		t.Errorf("%d lines, fuel %v, %d requests:\n%s", e.lines, e.fuel, len(e.requests), out.String())
	}
	files, err := os.ReadDir(b.results)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}
