package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

const tenant, nodeName = "acme", "edge-1"

// unsyncedFS writes real files and leaves out the fsyncs, for tests of what
// is in the files.
type unsyncedFS struct{ osFS }

type unsyncedFile struct{ File }

func (f unsyncedFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	file, err := f.osFS.OpenFile(name, flag, perm)
	return unsyncedFile{file}, err
}

func (unsyncedFS) SyncDir(string) error { return nil }

func (unsyncedFile) Sync() error { return nil }

// A bench is a journal's folder with its key.
type bench struct {
	t    testing.TB
	cfg  Config
	keys *audit.Keys
	node note.Verifier
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir := t.TempDir()
	key, vkey, err := LoadOrCreateKey(filepath.Join(dir, "log.key"), audit.NodeKeyName(tenant, nodeName))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, keys: &audit.Keys{}, cfg: Config{
		Dir: filepath.Join(dir, "journal"), Tenant: tenant, Node: nodeName, Key: key,
		SegmentBytes: 16 << 10, CheckpointInterval: time.Hour, CheckpointRecords: 1 << 40, IdleInterval: time.Hour,
	}}
	if err := b.keys.AddNode(vkey); err != nil {
		t.Fatal(err)
	}
	b.node = b.keys.Node(tenant, nodeName)
	return b
}

func (b *bench) open() *Journal {
	b.t.Helper()
	j, err := Open(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { j.Close() })
	return j
}

// crash ends a journal as kill -9 does: no closing checkpoint, nothing cut.
func (b *bench) crash(j *Journal) {
	b.t.Helper()
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	<-j.writer
	<-j.signer
	<-j.watcher
	<-j.scrubber
	if err := errors.Join(j.out.file.Close(), j.unlock()); err != nil {
		b.t.Fatal(err)
	}
}

func decision(i int) *audit.Record {
	return &audit.Record{Kind: audit.KindDecision, Time: 1_763_825_600_000_000_000 + int64(i), Decision: &audit.DecisionRecord{
		Point: "tool.pre_call", RequestID: fmt.Sprintf("r-%d", i), Subject: audit.Entity{Type: "user", ID: "alice"},
		Action: "call", Resource: audit.Entity{Type: "tool", ID: "payments.transfer"},
		Request: audit.NewPart(nil, fmt.Appendf(nil, `{"subject":{"type":"user","id":"alice"},"n":%d}`, i)),
		Verdict: policy.Deny, Reasons: []audit.Reason{{Code: "amount_over_limit", Text: "amount over the limit of the role"}},
		Activation: 2, Epoch: 3, Durability: policy.Synced, Runs: []audit.Run{{Fuel: 12_345}}, Latency: 42_000,
	}}
}

// fill appends n decisions, each in a group of its own, and returns their refs.
func (b *bench) fill(j *Journal, n int) []audit.Ref {
	b.t.Helper()
	var refs []audit.Ref
	for i := range n {
		ref, err := j.Append(context.Background(), decision(i), policy.Synced)
		if err != nil {
			b.t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	return refs
}

// verify exports the journal and verifies the export.
func (b *bench) verify(j *Journal) (*audit.Report, error) {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "export")
	exportErr := exportTo(dir, j.Export)
	r, err := audit.Verify(os.DirFS(dir), b.keys)
	if err != nil {
		b.t.Fatal(err)
	}
	return r, exportErr
}

func (b *bench) mustComplete(j *Journal) *audit.Report {
	b.t.Helper()
	r, err := b.verify(j)
	if err != nil || r.Verdict != audit.VerdictComplete || r.Files.Damaged > 0 || len(r.Problems) > 0 {
		b.t.Fatalf("%v: %+v", err, r)
	}
	return r
}

func TestEveryStartIsABootThatNamesTheOneBefore(t *testing.T) {
	b := newBench(t)
	for boot := range 4 {
		j := b.open()
		if got := len(j.Boots()); got != boot+1 {
			t.Fatalf("start %d: %d boots", boot, got)
		}
		b.fill(j, 200)
		b.mustComplete(j)
		if boot%2 == 0 {
			b.crash(j)
		} else if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	j := b.open()
	r := b.mustComplete(j)
	boots := r.Nodes[0].Boots
	if len(boots) != 5 || boots[0].To != 201 || boots[4].To != 1 || boots[1].Records["decision"] != 200 {
		t.Fatalf("%+v", boots)
	}
	if segments, _ := j.past[0].segments(); len(segments) < 3 {
		t.Fatalf("%d segments: the test wants several", len(segments))
	}
}

func TestReadBatchFromAnywhere(t *testing.T) {
	b := newBench(t)
	j := b.open()
	refs := b.fill(j, 120)
	for _, from := range []uint64{1, 2, 50, 121} {
		for _, limit := range []int{1, 7, 0} {
			seq := from
			for seq <= 121 {
				batch, err := j.ReadBatch(j.Boot(), seq, limit, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, records, err := batch.Verify(b.node, nil)
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range records {
					if r.Seq != seq+uint64(i) || r.Seq > 1 && batch.Entries[i].Hash() != refs[r.Seq-2].Leaf {
						t.Fatalf("record %d at %d", r.Seq, seq+uint64(i))
					}
				}
				seq = batch.Last() + 1
			}
		}
	}
	if _, err := j.ReadBatch(j.Boot(), 122, 0, 0); !errors.Is(err, ErrNoRecords) {
		t.Fatal(err)
	}
}

func TestProve(t *testing.T) {
	b := newBench(t)
	j := b.open()
	refs := b.fill(j, 60)
	for _, ref := range refs {
		p, err := j.Prove(ref.Boot, ref.Seq)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if p, err = audit.DecodeProof(doc); err != nil {
			t.Fatal(err)
		}
		r, _, err := p.Verify(b.node)
		if err != nil || r.Seq != ref.Seq || p.Entry.Hash() != ref.Leaf {
			t.Fatalf("%v: %+v", err, r)
		}
		p.Path[0][3] ^= 1
		if _, _, err := p.Verify(b.node); err == nil {
			t.Fatal("a changed path was accepted")
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	b := newBench(t)
	j := b.open()
	big := decision(1)
	big.Decision.Request = audit.NewPart(nil, make([]byte, audit.MaxEntryBytes))
	wrong := decision(1)
	wrong.Kind = audit.KindAdmin
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, try := range map[string]func() error{
		"region":    func() error { _, err := j.Append(context.Background(), decision(1), policy.Region); return err },
		"none":      func() error { _, err := j.Append(context.Background(), decision(1), policy.NotRecorded); return err },
		"too large": func() error { _, err := j.Append(context.Background(), big, policy.Synced); return err },
		"no body": func() error {
			_, err := j.Append(context.Background(), &audit.Record{Kind: audit.KindBoot}, policy.Synced)
			return err
		},
		"two kinds": func() error { _, err := j.Append(context.Background(), wrong, policy.Synced); return err },
		"cancelled": func() error { _, err := j.Append(cancelled, decision(1), policy.Synced); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(context.Background(), decision(1), policy.Synced); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := j.Close(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestLargeRecordsAreExported(t *testing.T) {
	b := newBench(t)
	j := b.open()
	for i := range 6 {
		r := decision(i)
		part := make([]byte, 600<<10)
		for k := range part { // not compressible
			part[k] = byte(k*k*31 + k>>7*17 + i)
		}
		r.Decision.Request = audit.NewPart(nil, part)
		if _, err := j.Append(context.Background(), r, policy.Synced); err != nil {
			t.Fatal(err)
		}
	}
	b.mustComplete(j)
}

func TestConcurrentHammer(t *testing.T) {
	b := newBench(t)
	b.cfg.CheckpointInterval, b.cfg.CheckpointRecords = time.Millisecond, 50
	j := b.open()
	const callers, each = 32, 60
	var mu sync.Mutex
	seen := map[uint64]tlog.Hash{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				class := policy.Synced
				if i%3 == 0 {
					class = policy.Written
				}
				ref, err := j.Append(context.Background(), decision(c*each+i), class)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				seen[ref.Seq] = ref.Leaf
				mu.Unlock()
			}
		})
	}
	done := make(chan error, 1)
	go func() { done <- follow(j, b.node, 1+callers*each) }()
	wg.Wait()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(seen) != callers*each {
		t.Fatalf("%d seqs for %d records", len(seen), callers*each)
	}
	dir := filepath.Join(t.TempDir(), "export")
	if err := exportTo(dir, j.Export); err != nil {
		t.Fatal(err)
	}
	r, err := audit.VerifyEach(os.DirFS(dir), b.keys, func(_, _ string, r *audit.Record, leaf tlog.Hash) {
		if r.Decision != nil && seen[r.Seq] != leaf {
			t.Errorf("record %d: another leaf than the caller was told", r.Seq)
		}
	})
	if err != nil || r.Verdict != audit.VerdictComplete {
		t.Fatalf("%v %+v", err, r)
	}
}

// follow reads every record up to last as a shipper does.
func follow(j *Journal, node note.Verifier, last uint64) error {
	for next := uint64(1); next <= last; {
		changed := j.Changed()
		batch, err := j.ReadBatch(j.Boot(), next, 0, 0)
		if errors.Is(err, ErrNoRecords) {
			<-changed
			continue
		}
		if err != nil {
			return err
		}
		if _, _, err := batch.Verify(node, nil); err != nil {
			return err
		}
		next = batch.Last() + 1
	}
	return nil
}

func TestIdleCheckpointSaysThatTheNodeLives(t *testing.T) {
	b := newBench(t)
	b.cfg.IdleInterval = time.Millisecond
	j := b.open()
	first, err := j.LastCheckpoint(j.Boot())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		changed := j.Changed()
		<-changed
	}
	later, err := j.LastCheckpoint(j.Boot())
	if err != nil {
		t.Fatal(err)
	}
	a, _ := audit.OpenCheckpoint(first, b.node)
	z, err := audit.OpenCheckpoint(later, b.node)
	if err != nil || z.Size != a.Size || z.Root != a.Root || z.Time <= a.Time {
		t.Fatalf("%v: %+v then %+v", err, a, z)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k1, v1, err := LoadOrCreateKey(path, "holdfast/a/b")
	if err != nil {
		t.Fatal(err)
	}
	k2, v2, err := LoadOrCreateKey(path, "holdfast/a/b")
	if err != nil || v1 != v2 || k1.KeyHash() != k2.KeyHash() {
		t.Fatalf("%v: %s, then %s", err, v1, v2)
	}
	if _, _, err := LoadOrCreateKey(path, "holdfast/a/c"); err == nil {
		t.Fatal("a key of another name was accepted")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateKey(path, "holdfast/a/b"); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Fatalf("a key that others may read: %v", err)
	}
}

// exportTo begins an export in dir, fills it and closes it.
func exportTo(dir string, fill func(*audit.ExportWriter) error) error {
	w, err := audit.NewExportWriter(dir)
	if err != nil {
		return err
	}
	return errors.Join(fill(w), w.Close())
}

// A log key that is replaced: what it signed stays the node's, whether the boot
// was closed with it or recovered with the new one; nobody else's key does.
func TestReplacedLogKey(t *testing.T) {
	b := newBench(t)
	j := b.open()
	refs := b.fill(j, 30)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = b.open()
	refs = append(refs, b.fill(j, 30)...)
	b.crash(j)
	dir := filepath.Dir(b.cfg.Dir)
	path, former, name := filepath.Join(dir, "log.key"), filepath.Join(dir, "log.keys"), audit.NodeKeyName(tenant, nodeName)
	vkey, err := ReplaceKey(path, former, name)
	if err != nil {
		t.Fatal(err)
	}
	var loaded string
	if b.cfg.Key, loaded, err = LoadKey(path, name); err != nil || loaded != vkey {
		t.Fatalf("%v: %q, not %q", err, loaded, vkey)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", err, info.Mode())
	}
	stranger := b.cfg
	stranger.Dir = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(stranger.Dir, os.DirFS(b.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(NoteKey(former, vkey), NoteKey(former, vkey), b.keys.SetNode(vkey)); err != nil {
		t.Fatal(err)
	}
	if b.cfg.Signed, err = NodeKey(former, vkey); err != nil {
		t.Fatal(err)
	}
	b.node = b.keys.Node(tenant, nodeName)
	j = b.open()
	if d := j.Report().Damage; len(d) > 0 {
		t.Fatalf("%+v", d)
	}
	refs = append(refs, b.fill(j, 5)...)
	b.mustHave(j, refs)
	b.mustComplete(j)
	for _, boot := range j.Boots() {
		msg, err := j.LastCheckpoint(boot.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.OpenCheckpoint(msg, b.node); err != nil {
			t.Error(err)
		}
	}
	s, err := Open(stranger) // that does not know the old key
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Report().Damage; len(d) == 0 {
		t.Error("a checkpoint by a key that is not the node's passed")
	}
	s.Close()
}
