package audit

import (
	"bytes"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func FuzzDecodeBatch(f *testing.F) {
	l := newLedger(f)
	batches, _ := l.boot(boot1, bootLeaf(boot1, "", 0, nil), 12, 10)
	for _, b := range batches {
		doc, err := wire.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 1<<16 {
			return
		}
		b, err := DecodeBatch(wire.Compress(doc))
		if err != nil {
			return
		}
		if again, err := wire.Marshal(b); err != nil || !bytes.Equal(again, doc) {
			t.Fatalf("decoded, but not what would be written: %v", err)
		}
		b.Before()
		b.Verify(l.node, nil)
	})
}

func FuzzDecodeBatchFrame(f *testing.F) {
	l := newLedger(f)
	batches, _ := l.boot(boot1, bootLeaf(boot1, "", 0, nil), 3, 10)
	frame, err := batches[0].Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if b, err := DecodeBatch(frame); err == nil {
			b.Verify(l.node, nil)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	l := newLedger(f)
	c := Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: 3}
	f.Add(l.sign(c))
	f.Add(l.receipt(c))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if got, err := PeekCheckpoint(msg); err == nil {
			if again, err := ParseCheckpoint(got.Text()); err != nil || again != got {
				t.Fatalf("%v: %+v, then %+v", err, got, again)
			}
		}
		if got, err := OpenCheckpoint(msg, l.node); err == nil && got != c {
			t.Fatalf("forged: %q", msg)
		}
		OpenReceipt(msg, l.node, l.region)
		Cosign(msg, l.node, l.region)
	})
}

func FuzzKeys(f *testing.F) {
	l := newLedger(f)
	f.Add(l.keys.File())
	f.Add([]byte("node x\nregion y\n# c\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		k, err := ParseKeys(file)
		if err != nil {
			return
		}
		again, err := ParseKeys(k.File())
		if err != nil || !bytes.Equal(again.File(), k.File()) {
			t.Fatalf("%v: %q", err, k.File())
		}
	})
}

func FuzzGroup(f *testing.F) {
	const salt = 7
	group := make([]byte, GroupHeaderBytes)
	for seq := uint64(5); seq < 8; seq++ {
		e := entryOf(f, decision(seq))
		group = AppendEntry(group, e)
	}
	SealGroup(group, salt, 5, 4, 3)
	f.Add(group, true)
	f.Add(group[:50], false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) >= GroupHeaderBytes && len(b) <= MaxGroupBytes {
			SealGroup(b, salt, 5, 4, max(1, int(b[0])%16)) // so that the payload is reached
		}
		h, err := ParseGroupHeader(b, salt)
		if err != nil {
			return
		}
		entries, err := h.Entries(b[GroupHeaderBytes:], salt)
		if err == nil && len(entries) != int(h.Count) {
			t.Fatalf("%d entries, %d counted", len(entries), h.Count)
		}
		for _, e := range entries {
			e.Record(nil)
		}
	})
}

func FuzzProof(f *testing.F) {
	l := newLedger(f)
	c := Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: 1}
	e := entryOf(f, decision(1))
	c.Root = e.Hash()
	doc, err := (&Proof{Entry: e, Seq: 1, Checkpoint: l.sign(c)}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := DecodeProof(doc)
		if err != nil {
			return
		}
		if r, _, err := p.Verify(l.node); err == nil && r.Seq != 1 {
			t.Fatalf("proved record %d", r.Seq)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestTitle + "\n" + wire.Sum(nil).Hex() + " 0 nodes/a/b/c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		export := fstest.MapFS{manifestName: {Data: text}}
		if r, err := Verify(export, &Keys{}); err != nil || r.Verdict == VerdictComplete {
			t.Fatalf("%v %+v", err, r)
		}
	})
}

// FuzzOpenAttestation signs what comes when asked to, so that the fuzzer gets
// behind the signature. What opens is what would be signed.
func FuzzOpenAttestation(f *testing.F) {
	node := newSigner(f, NodeKeyName("acme", "edge-1"))
	body, err := wire.Marshal(attestation())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, true)
	f.Add(attest(f, attestation(), node), false)
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		if sign {
			msg = signBody(t, msg, node)
		}
		a, err := OpenAttestation(msg, node)
		if err != nil {
			return
		}
		if again, err := SignAttestation(a, node); err != nil || sign && !bytes.Equal(again, msg) {
			t.Fatalf("opened, but not what would be signed: %v", err)
		}
	})
}
