package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sharing is a boot whose records share a blob that the first decision brings.
func sharing(l *ledger, n, per int) (batches []*Batch, head Checkpoint) {
	declared := bytes.Repeat([]byte("declaration "), 50)
	var f Frontier
	w := &Window{}
	for seq := 1; seq <= n; seq++ {
		r := bootLeaf(boot1, "", 0, nil)
		if seq > 1 {
			b := append(append([]byte(`{"tool":"`), declared...), `"}`...)
			r = requested(uint64(seq), withSlots(nil, b, [2]int{9, 9 + len(declared)}), nil)
		}
		if (seq-1)%per == 0 {
			batches = append(batches, &Batch{Tenant: "acme", Node: "edge-1", Boot: boot1, First: uint64(seq), Frontier: f.Roots()})
		}
		e := entryIn(l.t, w, r)
		b := batches[len(batches)-1]
		b.Entries = append(b.Entries, e)
		f.Append(e.Hash())
		head = Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: f.Size(), Root: f.Root(), Time: int64(seq)}
		b.Checkpoint = l.sign(head)
	}
	return batches, head
}

// Every record of a folder has a proof that verifies, holds its parts whole, and
// is under the receipt where that reaches.
func TestProveFromAFolder(t *testing.T) {
	l := newLedger(t)
	batches, _ := sharing(l, 50, 7)
	middle := Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Time: 1}
	var f Frontier
	for _, b := range batches {
		for _, e := range b.Entries {
			if f.Size() < 33 {
				f.Append(e.Hash())
			}
		}
	}
	middle.Size, middle.Root = f.Size(), f.Root()
	dir := export(t, batches, l.receipt(middle))
	folder := Folder{os.DirFS(dir)}
	for seq := uint64(1); seq <= 50; seq++ {
		p, err := folder.Prove("edge-1", boot1, seq, l.keys)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := p.Encode()
		if err == nil {
			p, err = DecodeProof(doc)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, c, err := p.Verify(l.node)
		if err != nil || r.Seq != seq || seq > 1 && r.Decision.Request.Missing() || seq <= 33 && c.Size != 33 || seq > 33 && c.Size != batches[(seq-1)/7].Last() {
			t.Fatalf("%d: %v %+v under %d", seq, err, r, c.Size)
		}
		_, regions, err := OpenCosigned(p.Checkpoint, l.node, l.keys.Regions("acme")...)
		if err != nil || (len(regions) == 1) != (seq <= 33) {
			t.Fatalf("%d: %v %v", seq, err, regions)
		}
	}
	for _, seq := range []uint64{0, 51, 1 << 60} {
		if _, err := folder.Prove("edge-1", boot1, seq, l.keys); !errors.Is(err, ErrNoRecord) {
			t.Errorf("%d: %v", seq, err)
		}
	}
	if _, err := folder.Prove("edge-1", boot1, 3, &Keys{}); err == nil || !strings.Contains(err.Error(), "no public key") {
		t.Errorf("%v", err)
	}
	if _, err := folder.Prove("edge-2", boot1, 3, l.keys); err == nil {
		t.Error("a node that is not there")
	}
}

// A folder that lacks or altered what a proof needs gives none.
func TestProveFromADamagedFolder(t *testing.T) {
	l := newLedger(t)
	batches, head := sharing(l, 50, 7)
	for name, c := range map[string]struct {
		change func(dir string)
		proven bool
	}{
		"nothing":                             {func(string) {}, true},
		"a batch on the way to the receipt":   {func(dir string) { os.Remove(filepath.Join(dir, exportPath("edge-1", boot1, 29, batchSuffix))) }, true},
		"the batch itself":                    {func(dir string) { os.Remove(filepath.Join(dir, exportPath("edge-1", boot1, 15, batchSuffix))) }, false},
		"a batch before it, with no blob":     {func(dir string) { os.Remove(filepath.Join(dir, exportPath("edge-1", boot1, 8, batchSuffix))) }, true},
		"an altered leaf in its batch":        {func(dir string) { recode(t, dir, boot1, 15, func(b *Batch) { b.Entries[2].Leaf[9] ^= 1 }) }, false},
		"a link in the place of its batch":    {func(dir string) { link(t, dir, exportPath("edge-1", boot1, 15, batchSuffix)) }, false},
		"a batch that claims another's place": {func(dir string) { recode(t, dir, boot1, 15, func(b *Batch) { b.First = 16 }) }, false},
	} {
		dir := export(t, batches, l.receipt(head))
		c.change(dir)
		if p, err := (Folder{os.DirFS(dir)}).Prove("edge-1", boot1, 17, l.keys); (err == nil) != c.proven {
			t.Errorf("%s: %v %v", name, p, err)
		}
	}
}

// link puts a symbolic link to the same content in the place of a file.
func link(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)); err != nil {
		t.Fatal(err)
	}
}
