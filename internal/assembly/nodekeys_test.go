package assembly

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// What a hub keeps of enrolments is trusted at its next start; what was damaged of
// it meanwhile is as if it had never been there.
func TestNodeKeysOutliveAStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.keys")
	keys, err := openNodeKeys(file, &audit.Keys{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"one", "two", "one"} { // the last one has another key
		_, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName("bank", node))
		if err == nil {
			err = keys.enrolled(&bundle.SignedEnrolment{Enrolment: bundle.Enrolment{LogKey: vkey}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text     string
		one, two bool
	}{
		{string(text), true, true},
		{string(text[:len(text)-20]), false, true}, // the newest line is the last
		{"", false, false},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		again := &audit.Keys{}
		if _, err := openNodeKeys(file, again); err != nil {
			t.Fatal(err)
		}
		if one, two := again.Node("bank", "one") != nil, again.Node("bank", "two") != nil; one != c.one || two != c.two {
			t.Errorf("%d bytes: one %v, two %v", len(c.text), one, two)
		}
	}
}
