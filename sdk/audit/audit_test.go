package audit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A signer is a key with both its halves.
type signer struct {
	note.Signer
	vkey string
	note.Verifier
}

func (s signer) Name() string    { return s.Signer.Name() }
func (s signer) KeyHash() uint32 { return s.Signer.KeyHash() }

func newSigner(t testing.TB, name string) signer {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, vkey, v}
}

func decision(seq uint64) *Record {
	digest := wire.Sum([]byte("module"))
	return &Record{Seq: seq, Kind: KindDecision, Time: 1_763_825_600_123_456_789, Decision: &DecisionRecord{
		Point: "tool.pre_call", RequestID: "0193-7f2c", Subject: Entity{"user", "alice"}, Action: "call", Resource: Entity{"tool", "payments.transfer"},
		Request: NewPart(nil, fmt.Appendf(nil, `{"n":%d}`, seq)), Verdict: policy.Deny,
		Reasons: []Reason{{"amount_over_limit", "10000 is over the limit of 500"}}, Value: NewPart(nil, []byte{1, 2, 3}),
		Obligations: []policy.Obligation{{Type: "notify", Properties: map[string]any{"who": "desk"}}},
		Activation:  2, Epoch: 3, Durability: policy.Synced, Failure: &Failure{Cause: "fuel", Trap: "fuel_exhausted", Module: &digest},
		Runs: []Run{{Fuel: 12_345}, {Module: 1, Verdict: policy.Allow, Trap: "unreachable"}}, Latency: 42_000,
	}}
}

func entryOf(t testing.TB, r *Record) Entry {
	t.Helper()
	body, err := r.Body()
	if err != nil {
		t.Fatal(err)
	}
	stored := r.Store()
	return Entry{Leaf: AppendLeaf(nil, body, r.Seq), Parts: stored.Parts, Key: stored.Key, Blobs: stored.Introduce(&Window{}, r.Seq)}
}

func TestLeafIsTheRecordsEncoding(t *testing.T) {
	for _, seq := range []uint64{1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1 << 60} {
		r := decision(seq)
		want, err := wire.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		e := entryOf(t, r)
		if !bytes.Equal(e.Leaf, want) {
			t.Fatalf("seq %d:\n%x\n%x", seq, e.Leaf, want)
		}
		again, err := e.Record(nil)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("seq %d: %v\n%+v\n%+v", seq, err, again, r)
		}
	}
}

func TestTypicalRecordIsSmall(t *testing.T) {
	r := decision(100_000)
	r.Decision.Value, r.Decision.Obligations, r.Decision.Failure, r.Decision.Runs = nil, nil, nil, r.Decision.Runs[:1]
	if n := len(entryOf(t, r).Leaf); n > 250 {
		t.Fatalf("%d bytes", n)
	} else {
		t.Logf("%d bytes", n)
	}
}

func TestEntryRefusesSwappedParts(t *testing.T) {
	good := entryOf(t, decision(5))
	for name, parts := range map[string][][]byte{
		"flipped":  {append([]byte{good.Parts[0][0] ^ 1}, good.Parts[0][1:]...), good.Parts[1]},
		"swapped":  {good.Parts[1], good.Parts[0]},
		"longer":   {append(bytes.Clone(good.Parts[0]), ' '), good.Parts[1]},
		"too many": {good.Parts[0], good.Parts[1], {1}},
	} {
		if _, err := (Entry{Leaf: good.Leaf, Parts: parts}).Record(nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r, err := Entry{Leaf: good.Leaf, Parts: [][]byte{nil, good.Parts[1]}}.Record(nil)
	if err != nil || r.Decision.Request.Bytes != nil || r.Decision.Value.Bytes == nil {
		t.Fatalf("an erased part: %v", err)
	}
}

func TestFrontierAgainstTlog(t *testing.T) {
	var f Frontier
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, a := range at {
			out[i] = stored[a]
		}
		return out, nil
	})
	var leaves []tlog.Hash
	for n := int64(0); n < 200; n++ {
		want, err := tlog.TreeHash(n, read)
		if err != nil || f.Root() != want {
			t.Fatalf("size %d: %v, %v, %v", n, f.Root(), want, err)
		}
		g, ok := NewFrontier(f.Size(), f.Roots())
		if !ok || g.Root() != want {
			t.Fatalf("size %d does not come back", n)
		}
		if _, ok := NewFrontier(f.Size()+1, f.Roots()); ok && n != 1 && n&(n+1) != 0 && len(f.Roots()) != countOnes(f.Size()+1) {
			t.Fatalf("size %d with the roots of %d", n+1, n)
		}
		for seq := uint64(1); seq <= uint64(n); seq += 7 {
			want, err := tlog.ProveRecord(n, int64(seq-1), read)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Path(uint64(n), seq, func(yield func(tlog.Hash) bool) {
				for _, l := range leaves {
					if !yield(l) {
						return
					}
				}
			})
			if err != nil || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, []tlog.Hash(want)) {
				t.Fatalf("path of %d in %d: %v\n%v\n%v", seq, n, err, got, want)
			}
		}
		leaf := tlog.RecordHash([]byte{byte(n)})
		more, err := tlog.StoredHashesForRecordHash(n, leaf, read)
		if err != nil {
			t.Fatal(err)
		}
		stored, leaves = append(stored, more...), append(leaves, leaf)
		f.Append(leaf)
	}
}

func countOnes(n uint64) (ones int) {
	for ; n > 0; n &= n - 1 {
		ones++
	}
	return ones
}

func TestBootID(t *testing.T) {
	id := BootID(7, 0xabc)
	if id != "00000007-0000000000000abc" {
		t.Fatal(id)
	}
	if c, r, err := ParseBootID(id); c != 7 || r != 0xabc || err != nil {
		t.Fatal(c, r, err)
	}
	for _, bad := range []string{"", "-", "7-abc", "00000007-0000000000000ABC", "00000007-0000000000000abc/", "../0007-0000000000000abc", "+0000007-0000000000000abc"} {
		if _, _, err := ParseBootID(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestCheckpointsCosignaturesReceipts(t *testing.T) {
	node, other := newSigner(t, NodeKeyName("acme", "edge-1")), newSigner(t, NodeKeyName("acme", "edge-1"))
	region, region2 := newSigner(t, RegionKeyName("acme", "eu")), newSigner(t, RegionKeyName("acme", "us"))
	c := Checkpoint{Tenant: "acme", Node: "edge-1", Boot: BootID(1, 2), Size: 42, Root: tlog.RecordHash([]byte("x")), Time: 123}
	msg, err := c.Sign(node)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(msg, node); err != nil || got != c {
		t.Fatalf("%v %+v", err, got)
	}
	receipt, err := Cosign(msg, node, region)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenReceipt(receipt, node, region); err != nil || got.Region != "eu" || got.Checkpoint != c {
		t.Fatalf("%v %+v", err, got)
	}
	forged, _ := c.Sign(other)
	regionOnly, _ := c.Sign(region)
	wrongNode, _ := Checkpoint{Tenant: "acme", Node: "edge-2", Boot: c.Boot, Size: 1}.Sign(node)
	for name, try := range map[string]func() error{
		"other key, same name":  func() error { _, err := OpenCheckpoint(forged, node); return err },
		"cosign a forged one":   func() error { _, err := Cosign(forged, node, region); return err },
		"another node's origin": func() error { _, err := OpenCheckpoint(wrongNode, node); return err },
		"not counter-signed":    func() error { _, err := OpenReceipt(msg, node, region); return err },
		"by the other region":   func() error { _, err := OpenReceipt(receipt, node, region2); return err },
		"changed size": func() error {
			_, err := OpenCheckpoint(bytes.Replace(msg, []byte("\n42\n"), []byte("\n43\n"), 1), node)
			return err
		},
		"changed receipt": func() error {
			_, err := OpenReceipt(bytes.Replace(receipt, []byte("\n42\n"), []byte("\n43\n"), 1), node, region)
			return err
		},
		"by the region only": func() error { _, err := OpenReceipt(regionOnly, node, region); return err },
		"too long":           func() error { _, err := OpenCheckpoint(append(msg, make([]byte, MaxNoteBytes)...), node); return err },
		"empty":              func() error { _, err := OpenCheckpoint(nil, node); return err },
	} {
		if try() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseCheckpointTakesOneFormOnly(t *testing.T) {
	good := Checkpoint{Tenant: "a", Node: "b", Boot: BootID(1, 2), Size: 3, Time: 4}.Text()
	if _, err := ParseCheckpoint(good); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "\n\n\n\n", good + "\n", strings.TrimSuffix(good, "\n"), strings.Replace(good, "\n3\n", "\n03\n", 1), strings.Replace(good, "\n3\n", "\n-3\n", 1),
		strings.Replace(good, "\n3\n", "\n99999999999999999999\n", 1), strings.Replace(good, "time 4", "time +4", 1), strings.Replace(good, "time 4", "4", 1),
		strings.Replace(good, "holdfast/", "holdfist/", 1), strings.Replace(good, "AAAA", "AAA", 1), strings.Replace(good, "/b/", "/../", 1),
	} {
		if c, err := ParseCheckpoint(bad); err == nil {
			t.Errorf("%q accepted as %+v", bad, c)
		}
	}
}

func TestKeys(t *testing.T) {
	node, node2, region := newSigner(t, NodeKeyName("acme", "edge-1")), newSigner(t, NodeKeyName("acme", "edge-1")), newSigner(t, RegionKeyName("acme", "eu"))
	region2 := newSigner(t, RegionKeyName("acme", "eu"))
	file := "# keys\n\nnode " + node.vkey + "\nregion " + region.vkey + "\n"
	k, err := ParseKeys([]byte(file))
	if err != nil || k.Node("acme", "edge-1") == nil || k.Region("acme", "eu") == nil || len(k.Regions("acme")) != 1 || k.Node("acme", "edge-2") != nil {
		t.Fatalf("%v %+v", err, k)
	}
	again, err := ParseKeys(k.File())
	if err != nil || !bytes.Equal(again.File(), k.File()) {
		t.Fatalf("%v\n%s", err, k.File())
	}
	for name, bad := range map[string]string{
		"second key":    file + "region " + region2.vkey,
		"until nothing": file + "node " + node2.vkey + " until ",
		"until 0":       file + "node " + node2.vkey + " until 0",
		"until region":  "region " + region.vkey + " until 3",
		"wrong role":    "region " + node.vkey,
		"unknown role":  "witness " + node.vkey,
		"node's region": "node " + region.vkey,
		"no key":        "node",
		"cut":           "node " + node.vkey[:len(node.vkey)-4],
		"a secret":      "node PRIVATE+KEY+x",
		"a long line":   "# " + strings.Repeat("x", 1<<17),
	} {
		if _, err := ParseKeys([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var none *Keys = &Keys{}
	if none.Node("a", "b") != nil || none.Regions("a") != nil || len(none.File()) == 0 {
		t.Fatal("the zero value trusts somebody")
	}
}

// What a key signed that was replaced stays the node's, up to the boot for which
// it counts; a key that was never the node's does not count.
func TestReplacedKey(t *testing.T) {
	name := NodeKeyName("acme", "edge-1")
	first, second, third, stranger := newSigner(t, name), newSigner(t, name), newSigner(t, name), newSigner(t, name)
	region := newSigner(t, RegionKeyName("acme", "eu"))
	k := &Keys{}
	if err := errors.Join(k.AddNode(first.vkey), k.SetNode(second.vkey, FormerKey{Key: first.vkey, Until: 3}), k.SetNode(third.vkey, FormerKey{first.vkey, 3}, FormerKey{Key: second.vkey}), k.AddRegion(region.vkey)); err != nil {
		t.Fatal(err)
	}
	again, err := ParseKeys(k.File())
	if err != nil || !bytes.Equal(again.File(), k.File()) {
		t.Fatalf("%v\n%s", err, k.File())
	}
	for _, keys := range []*Keys{k, again} {
		node := keys.Node("acme", "edge-1")
		if node.KeyHash() != third.Signer.KeyHash() {
			t.Fatal("the key in use is another one")
		}
		for _, c := range []struct {
			by   signer
			boot uint64
			ok   bool
		}{{first, 3, true}, {first, 4, false}, {second, 3, true}, {second, 9, true}, {third, 1, true}, {third, 9, true}, {stranger, 1, false}} {
			msg, err := (Checkpoint{Tenant: "acme", Node: "edge-1", Boot: BootID(c.boot, 5)}).Sign(c.by.Signer)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenCheckpoint(msg, node); (err == nil) != c.ok {
				t.Errorf("%+v: %v", c, err)
			}
			receipt, err := Cosign(msg, node, region.Signer)
			if (err == nil) != c.ok {
				t.Errorf("%+v counter-signed: %v", c, err)
			}
			if _, err := OpenReceipt(receipt, node, keys.Region("acme", "eu")); (err == nil) != c.ok {
				t.Errorf("%+v, its receipt: %v", c, err)
			}
		}
	}
}

// A ledger writes exports of made-up boots.
type ledger struct {
	t            testing.TB
	node, region signer
	keys         *Keys
}

func newLedger(t testing.TB) *ledger {
	l := &ledger{t: t, node: newSigner(t, NodeKeyName("acme", "edge-1")), region: newSigner(t, RegionKeyName("acme", "eu")), keys: &Keys{}}
	if err := errors.Join(l.keys.AddNode(l.node.vkey), l.keys.AddRegion(l.region.vkey)); err != nil {
		t.Fatal(err)
	}
	return l
}

func bootLeaf(boot, previous string, size uint64, root *tlog.Hash, damage ...Damage) *Record {
	return &Record{Kind: KindBoot, Seq: 1, Boot: &BootRecord{Tenant: "acme", Node: "edge-1", Boot: boot, Previous: previous, PreviousSize: size, PreviousRoot: root, Damage: damage}}
}

// tree makes the entries of a boot of n records and the batches of at most per.
func (l *ledger) boot(boot string, first *Record, n, per int) (batches []*Batch, head Checkpoint) {
	var f Frontier
	for seq := 1; seq <= n; seq++ {
		r := decision(uint64(seq))
		if seq == 1 {
			r = first
		}
		if (seq-1)%per == 0 {
			batches = append(batches, &Batch{Tenant: "acme", Node: "edge-1", Boot: boot, First: uint64(seq), Frontier: f.Roots()})
		}
		b := batches[len(batches)-1]
		e := entryOf(l.t, r)
		b.Entries = append(b.Entries, e)
		f.Append(e.Hash())
		head = Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot, Size: f.Size(), Root: f.Root(), Time: int64(seq)}
		b.Checkpoint = l.sign(head)
	}
	return batches, head
}

func (l *ledger) sign(c Checkpoint) []byte {
	msg, err := c.Sign(l.node)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

func (l *ledger) receipt(c Checkpoint) []byte {
	msg, err := Cosign(l.sign(c), l.node, l.region)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

// export writes batches and notes and returns the folder.
func export(t testing.TB, batches []*Batch, notes ...[]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	w, err := NewExportWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		frame, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Batch(frame); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range notes {
		if err := w.Checkpoint(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// verify verifies an export, with values of the records and without: the report
// is the same.
func (l *ledger) verify(dir string) *Report {
	l.t.Helper()
	r, err := Verify(os.DirFS(dir), l.keys)
	if err != nil {
		l.t.Fatal(err)
	}
	var records uint64
	slow, err := VerifyEach(os.DirFS(dir), l.keys, func(_, _ string, r *Record, leaf tlog.Hash) {
		if records++; entryOf(l.t, r).Hash() != leaf {
			l.t.Errorf("record %d has another leaf", r.Seq)
		}
	})
	if err != nil || !reflect.DeepEqual(r, slow) {
		l.t.Fatalf("%v\nwithout records: %+v\nwith them:       %+v", err, r, slow)
	}
	for _, n := range r.Nodes {
		for _, b := range n.Boots {
			var proven uint64
			for _, kind := range b.Records {
				proven += kind
			}
			if records -= proven; proven > b.To {
				l.t.Errorf("boot %s: %d records are proven, the last is %d", b.Boot, proven, b.To)
			}
		}
	}
	if records != 0 {
		l.t.Errorf("%d records too many were given", int64(records))
	}
	return r
}

// An answer stands in the place of a decision that came before it.
func TestInsteadOfALaterRecord(t *testing.T) {
	r := Record{Kind: KindDecision, Decision: &DecisionRecord{Point: "custom", Instead: 3}}
	body, err := r.Body()
	if err != nil {
		t.Fatal(err)
	}
	for seq, want := range map[uint64]bool{2: false, 3: false, 4: true} {
		if _, err := (Entry{Leaf: AppendLeaf(nil, body, seq)}).Record(nil); (err == nil) != want {
			t.Errorf("record %d in the place of 3: %v", seq, err)
		}
	}
}
