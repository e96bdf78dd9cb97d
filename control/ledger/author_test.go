package ledger

import (
	"crypto/rand"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

const tenant = "acme"

// signer makes a note key.
func signer(t testing.TB, name string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

// An author writes one boot's batches as a node's journal does.
type author struct {
	t          testing.TB
	key        note.Signer
	node, boot string
	text       string // distinguishes one history from another
	entries    []audit.Entry
}

func newAuthor(t testing.TB, keys *audit.Keys, node string) *author {
	t.Helper()
	key, vkey := signer(t, audit.NodeKeyName(tenant, node))
	if err := keys.AddNode(vkey); err != nil {
		t.Fatal(err)
	}
	return &author{t: t, key: key, node: node, boot: audit.BootID(1, 0xfeed), text: "true"}
}

// fork returns an author of the same boot whose records after size differ.
func (a *author) fork(size int) *author {
	f := *a
	f.text, f.entries = "false", append([]audit.Entry(nil), a.entries[:min(size, len(a.entries))]...)
	return &f
}

// batch returns records first to last.
func (a *author) batch(first, last int) *audit.Batch {
	a.t.Helper()
	for seq := len(a.entries) + 1; seq <= last; seq++ {
		r := &audit.Record{Kind: audit.KindAdmin, Time: int64(seq), Admin: &audit.AdminRecord{Event: "test", Text: a.text}}
		if seq == 1 {
			r = &audit.Record{Kind: audit.KindBoot, Boot: &audit.BootRecord{Tenant: tenant, Node: a.node, Boot: a.boot}}
		}
		body, err := r.Body()
		if err != nil {
			a.t.Fatal(err)
		}
		a.entries = append(a.entries, audit.Entry{Leaf: audit.AppendLeaf(nil, body, uint64(seq))})
	}
	var tree audit.Frontier
	for _, e := range a.entries[:first-1] {
		tree.Append(e.Hash())
	}
	b := &audit.Batch{Tenant: tenant, Node: a.node, Boot: a.boot, First: uint64(first), Frontier: tree.Roots(), Entries: a.entries[first-1 : last]}
	for _, e := range b.Entries {
		tree.Append(e.Hash())
	}
	var err error
	b.Checkpoint, err = audit.Checkpoint{Tenant: tenant, Node: a.node, Boot: a.boot, Size: tree.Size(), Root: tree.Root()}.Sign(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *author) frame(first, last int) []byte { return encode(a.t, a.batch(first, last)) }

func encode(t testing.TB, b *audit.Batch) []byte {
	t.Helper()
	frame, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func (a *author) String() string { return fmt.Sprintf("%s/%s", a.node, a.boot) }
