package main

import (
	"bufio"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A watched folder is tested again when it changes, also after a failure, and an
// interrupt ends it with 0.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("p.rego", "package p\n\nallow := true\n")
	put("p_test.rego", "package p_test\n\ntest_it if data.p.allow\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"test", dir, "--watch"}, nil, w, w)
		w.Close()
	}()
	seen := bufio.NewScanner(r)
	wait := func(text string) {
		t.Helper()
		for seen.Scan() {
			if strings.HasSuffix(seen.Text(), text) || !strings.HasPrefix(text, ":") && strings.Contains(seen.Text(), text) {
				return
			}
		}
		t.Fatalf("%q never came", text)
	}
	wait("ok    data.p_test.test_it")
	wait("watching")
	// Neither what a build writes nor what an editor does is a change; that it is
	// none shows in what the next run names.
	put("p.hfp", "x")
	put("p.wasm", "x")
	put(".p.rego.swp", "x")
	if err := os.Mkdir(filepath.Join(dir, "target"), 0o700); err != nil {
		t.Fatal(err)
	}
	put("target/p.rlib", "x")
	put("p.rego", "package p\n\nallow := false\n")
	wait(": changed p.rego")
	wait("FAIL  data.p_test.test_it")
	wait("1 of 1 failed")
	put("p.rego", "package p\n\nallow :=\n")
	wait("p.rego:4:0: rego_parse_error")
	put("p.rego", "package p\n\nallow := 1 == 1\n")
	wait("ok    data.p_test.test_it")
	wait("watching")
	put("vectors.yaml", "- {name: v, request: {document: 1}, expect: {verdict: allow}}")
	wait(": new vectors.yaml")
	wait("ok    v")
	wait("watching")
	cancel()
	go io.Copy(io.Discard, r)
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
}

// A ready module is watched, whoever wrote it: there it is the source.
func TestWatchedFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := func() string {
		seen, err := look(dir)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, name := range slices.Sorted(maps.Keys(seen)) {
			list = append(list, below(dir, name))
		}
		return strings.Join(list, " ")
	}
	put("policy.wasm", "x")
	put("policy.hfp", "x")
	put("vectors.yaml", "")
	if got := names(); got != "policy.wasm vectors.yaml" {
		t.Errorf("a module: %s", got)
	}
	put("main.go", "package main")
	if got := names(); got != "main.go vectors.yaml" {
		t.Errorf("Go: %s", got)
	}
	put("holdfast.yaml", "language: wasm")
	if got := names(); got != "holdfast.yaml main.go policy.wasm vectors.yaml" {
		t.Errorf("named wasm: %s", got)
	}
}

func TestChanges(t *testing.T) {
	before := files{"d/a": "1", "d/b": "1", "d/c": "1"}
	if got := changes("d", before, files{"d/a": "1", "d/b": "2", "d/e": "1"}); got != "changed b, new e, gone c" {
		t.Error(got)
	}
	if got := changes("d", files{}, files{"d/1": "", "d/2": "", "d/3": "", "d/4": "", "d/5": "", "d/6": "", "d/7": ""}); got != "new 1, new 2, new 3, new 4, new 5, and 2 more" {
		t.Error(got)
	}
}
