package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInitLeavesNothingBehind: the third of four files cannot be written, because
// the second is where its folder would be.
func TestInitLeavesNothingBehind(t *testing.T) {
	work := t.TempDir()
	err := writeAll(filepath.Join(work, "a", "b"), map[string][]byte{"1": []byte("x"), "2/x": []byte("x"), "2": []byte("x"), "3": []byte("x")})
	if err == nil {
		t.Fatal("a file and a folder of the same name")
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestInitKeepsTheFolder: a folder that was there, and empty, stays.
func TestInitKeepsTheFolder(t *testing.T) {
	work := t.TempDir()
	if err := writeAll(work, map[string][]byte{"2/x": nil, "2": []byte("x")}); err == nil {
		t.Fatal("a file and a folder of the same name")
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
