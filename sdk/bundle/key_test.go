package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

func TestPrivateKeyFile(t *testing.T) {
	want, err := bundle.GenerateKey(bundle.RoleAuthor, "ann@example.org")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ann.key")
	if err := want.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	got, err := bundle.ReadPrivateKey(path)
	if err != nil || !bytes.Equal(got.Ed25519(), want.Ed25519()) || got.String() != want.String() {
		t.Fatalf("%v, %v", got, err)
	}
	if err := want.WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over a key: %v", err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o660, 0o644, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.ReadPrivateKey(path); !errors.Is(err, bundle.ErrKeyFileMode) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestPrivateKeyFileRefuses(t *testing.T) {
	k := key(t, bundle.RoleAuthor, "ann", 1)
	path := filepath.Join(t.TempDir(), "k")
	if err := k.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		s := strings.Replace(string(good), old, new, 1)
		if s == string(good) {
			t.Fatalf("%q is not in the file", old)
		}
		return s
	}
	for name, text := range map[string]string{
		"empty":        "",
		"other head":   change("v1", "v2"),
		"unknown role": change("author", "king"),
		"no person":    change("person: ann", "person: "),
		"other id":     change("id: "+k.ID, "id: 0123456789abcdef"),
		"no seed":      string(good[:strings.Index(string(good), "seed")]),
		"short seed":   change("seed: ", "seed: AAAA"),
		"cut":          string(good[:len(good)-1]),
		"more":         string(good) + "x\n",
		"CRLF":         strings.ReplaceAll(string(good), "\n", "\r\n"),
		"a public key": k.String() + "\n",
		"very long":    string(good) + strings.Repeat("x\n", 1<<20),
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.ReadPrivateKey(path); !errors.Is(err, bundle.ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Printing a key by mistake shows its public half.
func TestPrintingShowsNoSecret(t *testing.T) {
	k := key(t, bundle.RoleAuthor, "ann", 1)
	secret := fmt.Sprint([]byte(k.Ed25519().Seed()))
	for _, verb := range []string{"%v", "%+v", "%s"} {
		if s := fmt.Sprintf(verb, k); s != k.Key.String() || strings.Contains(s, secret) {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func TestGenerateKeyRefuses(t *testing.T) {
	for _, c := range []struct{ role, person string }{{"king", "ann"}, {"author", ""}, {"author", "a b"}, {"author", "a\nb"}, {"author", strings.Repeat("a", 65)}} {
		if k, err := bundle.GenerateKey(bundle.Role(c.role), c.person); err == nil || k != nil {
			t.Errorf("%q", c)
		}
	}
	a, _ := bundle.GenerateKey(bundle.RoleLog, "n")
	b, _ := bundle.GenerateKey(bundle.RoleLog, "n")
	if a.ID == b.ID {
		t.Error("the same key twice")
	}
}
