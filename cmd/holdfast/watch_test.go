package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
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
			if strings.Contains(seen.Text(), text) {
				return
			}
		}
		t.Fatalf("%q never came", text)
	}
	wait("ok    data.p_test.test_it")
	wait("watching")
	put("p.rego", "package p\n\nallow := false\n")
	wait("FAIL  data.p_test.test_it")
	wait("1 of 1 failed")
	put("p.rego", "package p\n\nallow :=\n")
	wait("p.rego:4:0: rego_parse_error")
	put("p.rego", "package p\n\nallow := 1 == 1\n")
	wait("ok    data.p_test.test_it")
	wait("watching")
	cancel()
	go io.Copy(io.Discard, r)
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
}
