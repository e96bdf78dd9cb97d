package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// TestAuthor runs the scripts of testdata/author. In them "holdfast CODE ARGS"
// runs the program in this process and wants that exit code; paths are absolute,
// and the standard input is the file named stdin, if there is one. $SOURCE is the
// project's folder. "tarball FILE DIR" packs a folder, "cut FILE BYTES TO" copies
// the beginning of a file, and "large FILE BYTES" writes JSON with a text of that
// length.
func TestAuthor(t *testing.T) {
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/author",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SOURCE", source)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"holdfast": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				code := run(t.Context(), args[1:], bytes.NewReader(nil), ts.Stdout(), ts.Stderr())
				if code != want {
					ts.Fatalf("exit code %d, want %d", code, want)
				}
			},
			"tarball": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(tarball(args[0], args[1])) },
			"cut": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Check(os.WriteFile(args[2], []byte(ts.ReadFile(args[0]))[:n], 0o600))
			},
			"large": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Check(os.WriteFile(args[0], []byte(`{"text":"`+strings.Repeat("x", n)+`"}`), 0o600))
			},
		},
	})
}

// TestDemoCalls asks both demo policies every call of the demo, real and
// tampered, and wants the verdict and the reason that the call was made for.
func TestDemoCalls(t *testing.T) {
	h, err := newHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	var asked []func(*policy.Request) policy.Decision
	for _, name := range []string{"tool-authz", "argument-guard"} {
		asked = append(asked, decider(t, h, name))
	}
	calls, err := demo.Calls(1)
	if err != nil {
		t.Fatal(err)
	}
	honest, denied := 0, map[string]int{}
	for _, c := range calls {
		req, err := policy.ParseRequest(c.Point, c.Body)
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		verdict, codes := policy.Allow, []string{}
		for _, ask := range asked {
			d := ask(req)
			verdict = min(verdict, d.Verdict)
			for _, r := range d.Reasons {
				codes = append(codes, r.Code)
			}
		}
		if verdict != c.Want || c.Code != "" && !slices.Contains(codes, c.Code) {
			t.Errorf("%s: %s %q, want %s %q", c.ID, verdict, codes, c.Want, c.Code)
		}
		if c.Want == policy.Allow {
			honest++
		} else {
			denied[c.Tampering]++
		}
	}
	t.Logf("%d calls, %d allowed, denied by tampering: %v", len(calls), honest, denied)
	if honest < 900 {
		t.Errorf("only %d honest calls", honest)
	}
}

func decider(t *testing.T, h *host, name string) func(*policy.Request) policy.Decision {
	t.Helper()
	fsys, err := fs.Sub(modules.FS, name)
	if err != nil {
		t.Fatal(err)
	}
	built, err := compiler.BuildFS(t.Context(), fsys, compiler.Options{Loader: h, Prebuilt: true})
	if err != nil {
		t.Fatal(err)
	}
	return packageDecider(t, h, built.Package)
}

func packageDecider(t *testing.T, h *host, pkg *bundle.Package) func(*policy.Request) policy.Decision {
	t.Helper()
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		t.Fatal(err)
	}
	module, entrypoint, err := h.Load(t.Context(), pkg)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *policy.Request) policy.Decision {
		input, err := c.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		res, err := module.Call(abi.Call{Input: input, Entrypoint: entrypoint, Fuel: pkg.Fuel})
		if err != nil {
			t.Fatalf("%s: %v", r.ID, err)
		}
		d, err := c.Decode(res.Output)
		if err != nil {
			t.Fatalf("%s: %v", r.ID, err)
		}
		return d
	}
}

func tarball(name, dir string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	gz := gzip.NewWriter(f)
	tw := tar.NewWriter(gz)
	return errors.Join(tw.AddFS(os.DirFS(dir)), tw.Close(), gz.Close(), f.Close())
}

// A package file that is cut, or has a bit flipped, is bad input to every
// command: exit code 2, words, nothing written. A flip that the compression does
// not mind leaves the same package.
func TestDamagedPackages(t *testing.T) {
	whole, err := os.ReadFile("../../sdk/bundle/testdata/first-light.hfp")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "p.hfp")
	try := func(what string, content []byte, args ...string) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), append(args, file), nil, &out, &errs)
		same := code == exitOK && strings.Contains(out.String(), "sha256:a8a09b1c02cdfa60672d5d7257e7461ffda4d1846c25acd43c673702b5c482bd")
		if code != exitUsage && !same || code == exitUsage && !strings.Contains(errs.String(), "package is not valid: ") {
			t.Errorf("%s, %v: exit code %d, %s%s", what, args, code, out.String(), errs.String())
		}
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 150 {
		at := random.IntN(len(whole))
		try("cut at "+strconv.Itoa(at), whole[:at], "inspect")
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << random.IntN(8)
		try("flipped at "+strconv.Itoa(at), flipped, "inspect")
	}
	for _, args := range [][]string{{"inspect"}, {"inspect", "-o", "json"}, {"test"}, {"test", "--conformance"}, {"bench"}, {"eval", "-i", file}} {
		try("cut", whole[:len(whole)/2], args...)
		try("nothing", nil, args...)
		try("more", append(bytes.Clone(whole), 0), args...)
	}
}
