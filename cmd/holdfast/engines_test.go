package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
)

// TestVectorsOnBothEngines asks every golden vector of the ready-made policies
// on the compiler and on the interpreter: the same bytes, the same fuel.
func TestVectorsOnBothEngines(t *testing.T) {
	h, err := newHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	folders, err := fs.ReadDir(modules.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, folder := range folders {
		fsys, err := fs.Sub(modules.FS, folder.Name())
		if err != nil {
			t.Fatal(err)
		}
		built, err := compiler.BuildFS(t.Context(), fsys, compiler.Options{Loader: h, Prebuilt: true})
		if err != nil {
			t.Fatalf("%s: %v", folder.Name(), err)
		}
		questions, err := h.vectorQuestions(t.Context(), built.Package, &benchFlags{})
		if err != nil {
			t.Fatalf("%s: %v", folder.Name(), err)
		}
		used, err := fuelOf(t.Context(), questions)
		if err != nil {
			t.Errorf("%s: %v", folder.Name(), err)
		}
		asked += len(questions)
		t.Logf("%s: %d vectors, %d to %d units", folder.Name(), len(questions), used.Min, used.Max)
	}
	if asked < 50 {
		t.Errorf("only %d vectors asked", asked)
	}
}

// TestModulesOnBothEngines does so for every other .wasm file of the repository,
// with inputs that mean something to the test guests among them. Those of
// testdata/hostile are internal/hostile's.
func TestModulesOnBothEngines(t *testing.T) {
	var hosts [2]*conformanceHost
	for n := range hosts {
		h, err := newConformanceHost(t.Context(), n == 1)
		if err != nil {
			t.Fatal(err)
		}
		defer h.close(context.Background())
		hosts[n] = h
	}
	compared := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "modules" || strings.HasSuffix(path, "testdata/hostile")) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".wasm") {
			return nil
		}
		compared++
		return compareModule(t, hosts, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules", compared)
	if compared < 5 {
		t.Error("hardly any module was found")
	}
}

func compareModule(t *testing.T, hosts [2]*conformanceHost, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	report, err := narrowest(raw)
	if err != nil {
		t.Logf("%s is not admitted: %v", path, err)
		return nil
	}
	var loaded [2]abi.Module
	var failed [2]string
	for n, h := range hosts {
		m, err := h.Load(t.Context(), conformance.Guest{Name: path, Wasm: raw, ABI: report.ABI, Class: report.Class, Patterns: []string{`^a+$`}})
		loaded[n], failed[n] = m, fmt.Sprint(err)
	}
	if failed[0] != failed[1] {
		t.Errorf("%s: the compiler says %s, the interpreter %s", path, failed[0], failed[1])
	}
	if loaded[0] == nil || loaded[1] == nil {
		return nil
	}
	for _, input := range inputs() {
		if a, b := answer(loaded[0], input), answer(loaded[1], input); a != b {
			t.Errorf("%s, input %.20q: the compiler %s, the interpreter %s", path, input, a, b)
		}
	}
	return nil
}

// inputs are the letters that the test guests act on, numbers, and a request.
func inputs() []string {
	all := []string{"", "\xa0", "{}", `{"subject": {"type": "agent", "id": "a"}}`, "\xa1\x67subject\xa2\x64type\x65agent\x62id\x61a"}
	for letter := byte('a'); letter <= 'z'; letter++ {
		all = append(all, string(letter)+"0a")
	}
	for kind := range byte(16) {
		all = append(all, string([]byte{kind, 0, 0, 0, 250, 15, 0, 0, 40, 0, 0, 0}))
	}
	return all
}

func answer(m abi.Module, input string) string {
	result, err := m.Call(abi.Call{Input: []byte(input), Now: 7, Fuel: 20_000})
	return fmt.Sprintf("%x, %d units, %d messages, %v", result.Output, result.Fuel, len(result.Logs), err)
}
