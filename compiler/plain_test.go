package compiler

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestOnlyPlainFiles: what may never end is not read. Without the check the build
// takes all memory.
func TestOnlyPlainFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no /dev/zero")
	}
	for _, name := range []string{ConfigFile, "vectors.yaml", "params.schema.json", "data.json", "x.wasm"} {
		dir := t.TempDir()
		for file, text := range map[string]string{ConfigFile: "language: wasm\n", "x.wasm": "\x00asm\x01\x00\x00\x00"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/zero", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), dir, Options{Loader: &admitOnly{}})
		if err == nil || !strings.Contains(err.Error(), name+": no regular file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := t.TempDir()
	if err := os.WriteFile(filepath.Join(large, ConfigFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(large, ConfigFile), maxText+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), large, Options{Loader: &admitOnly{}}); err == nil || !strings.Contains(err.Error(), "at most 16777216") {
		t.Errorf("a large file: %v", err)
	}
	if _, err := Build(t.Context(), "/dev/zero", Options{Loader: &admitOnly{}}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("the folder itself: %v", err)
	}
}
