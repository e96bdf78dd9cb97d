package hub

import (
	"crypto/rand"
	"strconv"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// silent is a writer that nobody calls.
type silent struct{ Writer }

func idle(t *testing.T) (*Hub, *bundle.PrivateKey) {
	t.Helper()
	var public []bundle.Key
	var enrol *bundle.PrivateKey
	for _, role := range []bundle.Role{bundle.RoleRoot, bundle.RoleAuthor, bundle.RoleApprover, bundle.RoleEnrol} {
		k, err := bundle.GenerateKey(role, "p-"+string(role))
		if err != nil {
			t.Fatal(err)
		}
		public, enrol = append(public, k.Key), k
	}
	h, err := New(Config{
		Tenant: "acme", Region: "ra", Server: "ra-1", Root: bundle.NewTrustRoot("acme", time.Now().Add(time.Hour), public...),
		Reader: jetstream.Region{}, Writer: silent{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, enrol
}

// The first attestations of a stream are read from its beginning whenever
// reading begins anew, and a node may take an old epoch late: neither may end
// the server, and a node's newest epochs stay, whatever other nodes say.
func TestOldEpochsAfterNewOnes(t *testing.T) {
	h, _ := idle(t)
	at := time.Unix(1_800_000_000, 0)
	say := func(node string, epoch uint64, text string) {
		h.attestation(node, true, epoch, []byte(text), at.Add(time.Duration(epoch)))
	}
	for range 2 {
		for epoch := uint64(1); epoch <= 40; epoch++ {
			say("e1", epoch, "first")
		}
	}
	say("e2", 3, "first")
	say("e3", 1<<60, "first")
	if n := len(h.activations["e1"]); n != keptEpochs {
		t.Errorf("%d epochs of e1 are remembered", n)
	}
	for epoch := uint64(41 - keptEpochs); epoch <= 40; epoch++ {
		if n := len(h.activations["e1"][epoch]); n != 1 {
			t.Errorf("epoch %d of e1: %d attestations", epoch, n)
		}
	}
	if len(h.activations["e2"][3]) != 1 {
		t.Error("another node's epochs pushed out that of e2")
	}
}

// Of a node two attestations are kept, the newest ones; the same again is one.
func TestNewestTwo(t *testing.T) {
	var have []registry.Stored
	at := time.Unix(1_800_000_000, 0)
	for _, say := range []struct {
		text string
		at   time.Duration
		want string
	}{{"a", 1, "a"}, {"a", 1, "a"}, {"a", 2, "aa"}, {"b", 2, "ab"}, {"b", 2, "ab"}, {"c", 3, "bc"}} {
		have = keepNewest(have, registry.Stored{Data: []byte(say.text), At: at.Add(say.at)})
		got := ""
		for _, s := range have {
			got += string(s.Data)
		}
		if got != say.want {
			t.Errorf("after %s: %s, want %s", say.text, got, say.want)
		}
	}
}

// What nodes say that nobody has enrolled is kept up to a bound; nodes that are
// enrolled are heard all the same.
func TestStrangersAreBounded(t *testing.T) {
	for _, first := range []bool{false, true} {
		h, enrol := idle(t)
		for i := range 2 * maxUnknown {
			h.attestation("stranger-"+strconv.Itoa(i), first, 1, []byte("x"), time.Unix(1, 0))
		}
		if n := max(len(h.attestations), len(h.activations)); n != maxUnknown {
			t.Errorf("first %v: %d strangers, at most %d", first, n, maxUnknown)
		}
		h.object(enrolment(t, enrol, "e1", time.Now()), time.Now())
		h.attestation("e1", first, 1, []byte("x"), time.Unix(1, 0))
		if len(h.attestations["e1"])+len(h.activations["e1"]) != 1 {
			t.Errorf("first %v: an enrolled node is not heard", first)
		}
	}
}

func enrolment(t *testing.T, key *bundle.PrivateKey, node string, created time.Time) []byte {
	t.Helper()
	vkey := newLogKey(t, node)
	envelope, err := bundle.SignEnrolment(&bundle.Enrolment{Tenant: "acme", Node: node, Serial: 1, LogKey: vkey, Created: created.UnixNano()}, key)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func newLogKey(t *testing.T, node string) string {
	t.Helper()
	_, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName("acme", node))
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}
