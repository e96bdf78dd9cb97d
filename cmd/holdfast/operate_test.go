package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// TestOperate runs the scripts of testdata/operate. In them "holdfast CODE ARGS"
// runs the program in this process and wants that exit code; paths are absolute.
// "pkg NAME FILE" writes a package that no engine ever sees, "flip FILE TEXT TO"
// writes TO in the place of the first TEXT in a file.
func TestOperate(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/operate",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"holdfast": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				code := run(t.Context(), args[1:], bytes.NewReader(nil), ts.Stdout(), ts.Stderr())
				if code != want {
					ts.Fatalf("exit code %d, want %d", code, want)
				}
			},
			"pkg": func(ts *testscript.TestScript, _ bool, args []string) {
				file, err := emptyPackage(args[0])
				ts.Check(err)
				ts.Check(os.MkdirAll(filepath.Dir(args[1]), 0o755))
				ts.Check(os.WriteFile(args[1], file, 0o600))
			},
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				text := ts.ReadFile(args[0])
				if !strings.Contains(text, args[1]) {
					ts.Fatalf("%s has no %q", args[0], args[1])
				}
				ts.Check(os.WriteFile(args[0], []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
			},
			"payload": func(ts *testscript.TestScript, _ bool, args []string) {
				payload := regexp.MustCompile(`"payload":"[^"]*"`)
				from := payload.FindString(ts.ReadFile(args[0]))
				ts.Check(os.WriteFile(args[1], []byte(payload.ReplaceAllLiteralString(ts.ReadFile(args[1]), from)), 0o600))
			},
			"mode": func(ts *testscript.TestScript, _ bool, args []string) {
				st, err := os.Stat(args[1])
				ts.Check(err)
				if got := strconv.FormatUint(uint64(st.Mode().Perm()), 8); got != args[0] {
					ts.Fatalf("mode %s, want %s", got, args[0])
				}
			},
		},
	})
}

func emptyPackage(name string) ([]byte, error) {
	p := &bundle.Package{
		Manifest: bundle.Manifest{Name: name, ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy}, Module: []byte("\x00asm " + name),
		Vectors: []bundle.Vector{{Name: "v", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
	file, _, err := p.Encode()
	return file, err
}
