package replay_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/runtime/replay"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A package is found by its digest, whatever it is called and wherever it lies,
// and what else lies there does no harm.
func TestFindPackages(t *testing.T) {
	out, err := wire.Marshal(map[string]any{"verdict": "allow"})
	if err != nil {
		t.Fatal(err)
	}
	p := &bundle.Package{
		Manifest: bundle.Manifest{Name: "p", ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy}, Module: tinyguest.Says(out),
		Vectors: []bundle.Vector{{Name: "v", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
	file, digest, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	ref := &bundle.PackageRef{Name: "p", Digest: digest, Size: uint64(len(file)) * 100}
	for name, path := range map[string]string{"flat": "anything.hfp", "by digest": filepath.Join("packages", digest.Hex()+".hfp"), "a link": "linked.hfp"} {
		dir := t.TempDir()
		at := filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(at), 0o700)
		if name == "a link" {
			elsewhere := filepath.Join(t.TempDir(), "p")
			err = errors.Join(err, os.WriteFile(elsewhere, file, 0o600), os.Symlink(elsewhere, at))
		} else {
			err = errors.Join(err, os.WriteFile(at, file, 0o600))
		}
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "junk.hfp"), []byte("junk"), 0o600), os.WriteFile(filepath.Join(dir, "junk.dsse"), []byte("{"), 0o600),
			os.Symlink("/dev/zero", filepath.Join(dir, "endless.hfp")), syscall.Mkfifo(filepath.Join(dir, "pipe.dsse"), 0o600), os.Mkdir(filepath.Join(dir, "folder.hfp"), 0o700))
		if err != nil {
			t.Fatal(err)
		}
		found, err := replay.FindPackages(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := found.File(ref); err != nil || string(got) != string(file) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := found.File(&bundle.PackageRef{Digest: wire.Sum([]byte("other"))}); err == nil {
			t.Errorf("%s: a package that is not there", name)
		}
		if _, err := found.Release(digest); err == nil {
			t.Errorf("%s: a release that is not there", name)
		}
	}
	if _, err := replay.FindPackages(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that is not there")
	}
}
