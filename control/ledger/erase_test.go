package ledger

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A writer is an author whose records have parts, as an edge's have.
type writer struct {
	*author
	window audit.Window
}

// words are bytes that are found nowhere by chance: those of a name.
func words(name string, size int) []byte {
	rng := rand.New(rand.NewChaCha8([32]byte(wire.Sum([]byte(name)))))
	out := []byte(name + " ")
	for len(out) < size {
		out = fmt.Appendf(out, "%016x", rng.Uint64())
	}
	return out
}

func (w *writer) add(r *audit.Record) {
	w.t.Helper()
	seq := uint64(len(w.entries) + 1)
	body, err := r.Body()
	must(w.t, err)
	s := r.Store()
	w.entries = append(w.entries, audit.Entry{Leaf: audit.AppendLeaf(nil, body, seq), Parts: s.Parts, Key: s.Key, Blobs: s.Introduce(&w.window, seq)})
}

func (w *writer) begin() {
	w.add(&audit.Record{Kind: audit.KindBoot, Boot: &audit.BootRecord{Tenant: tenant, Node: w.node, Boot: w.boot, Schema: audit.SchemaVersion}})
}

// decide writes a decision about a subject whose request is the parts, each of
// them worth a blob when it is long.
func (w *writer) decide(subject string, parts ...[]byte) {
	key := audit.PartKey(words(fmt.Sprint("key", len(w.entries)), audit.PartKeyBytes)[:audit.PartKeyBytes])
	request := audit.NewPart(key, bytes.Join(parts, nil))
	at := 0
	for _, p := range parts {
		if len(p) >= 256 {
			request.Slots = append(request.Slots, audit.Slot{From: at, To: at + len(p), ID: audit.NameBlob(p)})
		}
		at += len(p)
	}
	w.add(&audit.Record{Kind: audit.KindDecision, Time: int64(len(w.entries) + 1), Key: key, Decision: &audit.DecisionRecord{
		Point: "tool.pre_call", Subject: audit.Entity{Type: "user", ID: subject}, Request: request, Verdict: policy.Allow,
	}})
}

func (w *writer) answer() {
	w.add(&audit.Record{Kind: audit.KindAdmin, Admin: &audit.AdminRecord{Event: audit.EventErased}})
}

// declaration is what many requests share.
var declaration = words("declaration", 900)

// told is a writer with what an erasure is about: record 5 introduces the
// declaration, which others use, and has a secret of its own, as 6, 7 and 20 do,
// of all sizes; 21 shares 20's.
func told(t *testing.T, keys *audit.Keys) *writer {
	w := &writer{author: newAuthor(t, keys, "e1")}
	w.begin()
	for seq := 2; seq <= 30; seq++ {
		own := fmt.Sprintf("words-of-%d", seq)
		switch seq {
		case 5:
			w.decide("ada", declaration, words("secret-5", 60))
		case 6:
			w.decide("ada", words("secret-6", 20_000))
		case 7:
			w.decide("ada", words("secret-7", audit.MaxShared+5000), declaration)
		case 20, 21:
			w.decide("ada", words("shared-20", 5000), []byte(own))
		default:
			w.decide("bob", declaration, []byte(own))
		}
	}
	return w
}

var toldErased = []audit.Range{{From: 5, To: 7}, {From: 20, To: 20}}

func erasure(node, boot string, ranges ...audit.Range) Document {
	env := fmt.Appendf(nil, "erasure of %s/%s %v", node, boot, ranges)
	return Document{Digest: wire.Sum(env), Envelope: env, Erase: []audit.Records{{Node: node, Boot: boot, Ranges: ranges}}}
}

func done(l *Ledger, d Document) func() bool {
	return func() bool {
		return slices.ContainsFunc(l.Documents(), func(s DocumentStatus) bool { return s.Digest == d.Digest && s.Done })
	}
}

// found lists the files below dirs that hold the words, as they are or
// decompressed.
func found(t *testing.T, text string, dirs ...string) (files []string) {
	t.Helper()
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreMissing(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return ignoreMissing(err)
			}
			plain, err := wire.Decompress(raw, audit.MaxBatchBytes)
			if bytes.Contains(raw, []byte(text)) || err == nil && bytes.Contains(plain, []byte(text)) {
				files = append(files, path)
			}
			return nil
		}))
	}
	return files
}

// verified exports a ledger's folder and verifies it, believing every document.
func verified(t *testing.T, dir string, keys *audit.Keys, docs ...Document) (*audit.Report, map[uint64]*audit.Record) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "export")
	w, err := audit.NewExportWriter(out)
	must(t, err)
	must(t, Export(dir, w))
	must(t, w.Close())
	keys.Believe(func(env []byte) (audit.Document, error) {
		for _, d := range docs {
			if bytes.Equal(d.Envelope, env) {
				return audit.Document{Tenant: tenant, Kind: "erasure", Removal: audit.Removal{By: d.Digest, Records: d.Erase}}, nil
			}
		}
		return audit.Document{}, errors.New("not known")
	})
	records := map[uint64]*audit.Record{}
	r, err := audit.VerifyWith(t.Context(), os.DirFS(out), keys, audit.Options{Records: func(p audit.Proven) {
		for _, r := range p.Records {
			records[r.Seq] = r
		}
	}})
	must(t, err)
	return r, records
}

// checkTold holds a ledger's folder against what must be left of told.
func checkTold(t *testing.T, dir string, keys *audit.Keys, doc Document) {
	t.Helper()
	r, records := verified(t, dir, keys, doc)
	b := r.Nodes[0].Boots[0]
	if r.Verdict != audit.VerdictComplete || !slices.Equal(b.Erased, toldErased) || len(b.Missing) > 0 || len(b.NotErased) > 0 {
		t.Errorf("%s: erased %v, missing %v, not erased %v, %v", r.Verdict, b.Erased, b.Missing, b.NotErased, r.Problems)
	}
	for seq := uint64(2); seq <= 30; seq++ {
		if records[seq] == nil {
			t.Errorf("record %d is not there", seq)
			continue
		}
		d := records[seq].Decision
		if audit.Contains(toldErased, seq) {
			if d.Request.Bytes != nil || d.Subject.ID != "ada" {
				t.Errorf("record %d: %q of %s", seq, d.Request.Bytes, d.Subject.ID)
			}
		} else if own := fmt.Sprintf("words-of-%d", seq); !strings.HasSuffix(string(d.Request.Bytes), own) {
			t.Errorf("record %d lost its request", seq)
		}
	}
}

// What is erased is in no file of any server afterwards, in no message of the
// stream and in no byte of its files; what others share stays, and everything is
// proven as before.
func TestErase(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	leader, _ := p.startServer(0, leads)
	other, _ := p.startServer(1, follows)
	frames := [][]byte{w.frame(1, 10), w.frame(11, 20), w.frame(21, 30)}
	p.ship(w.node, w.boot, frames...)
	p.cosigned(leader, w.author, 30)
	doc := erasure(w.node, w.boot, toldErased...)
	for _, l := range []*Ledger{leader, other} {
		must(t, l.Take(doc))
	}
	// The node may still write records that refer to a shared blob, so that one waits.
	until(t, "parts erased", func() bool { return len(found(t, "secret-5", p.dirs...)) == 0 })
	until(t, "large blob dropped", func() bool { return len(found(t, "secret-7", p.dirs...)) == 0 })
	if done(leader, doc)() || len(found(t, "secret-6", p.dirs...)) != 2 {
		t.Error("a blob that a record could refer to did not wait")
	}
	w.decide("eve", words("secret-6", 20_000), []byte("words-of-31")) // before the node knows
	w.answer()
	w.decide("eve", words("shared-20", 5000), []byte("words-of-33"))
	p.ship(w.node, w.boot, w.frame(31, 33))
	until(t, "done", done(leader, doc))
	until(t, "done by the other", done(other, doc))
	checkTold(t, p.dirs[0], p.keys, doc)
	checkTold(t, p.dirs[1], p.keys, doc)
	_, records := verified(t, p.dirs[1], p.keys, doc)
	for seq, want := range map[uint64]string{31: "words-of-31", 33: "words-of-33"} {
		if got := records[seq].Decision.Request.Bytes; !strings.HasSuffix(string(got), want) {
			t.Errorf("record %d, which came meanwhile, lost its request", seq)
		}
	}
	if files := found(t, "secret-5", append(p.dirs, p.conf.Dir)...); len(files) > 0 {
		t.Errorf("still in %v", files)
	}
	for _, f := range p.stored(w.author) {
		b, err := audit.DecodeBatch(f)
		must(t, err)
		for i, e := range b.Entries {
			if audit.Contains(toldErased, b.First+uint64(i)) && (len(e.Parts) > 0 || len(e.Key) > 0) {
				t.Errorf("the stream still has parts of record %d", b.First+uint64(i))
			}
		}
	}
	for i, f := range frames[:2] {
		if files := found(t, string(f[len(f)/2:len(f)/2+64]), p.conf.Dir); len(files) > 0 {
			t.Errorf("bytes of shipped batch %d are still in %v", i, files)
		}
	}
}

// stored are the batches of a boot that the stream holds.
func (p *place) stored(a *author) (frames [][]byte) {
	p.t.Helper()
	s := p.region.Conn.Stream(p.name, "REC_"+tenant)
	for seq := uint64(1); ; {
		group, err := s.Batch(p.t.Context(), seq, "hf."+tenant+"."+p.name+".rec."+a.node+"."+a.boot, 100, 1<<22)
		if err != nil || len(group) == 0 {
			return frames
		}
		for _, m := range group {
			frames = append(frames, m.Data)
		}
		seq = group[len(group)-1].Seq + 1
	}
}

// The last batch of a boot is the node's fence: it stays, without the parts.
func TestEraseTheLastBatch(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	l, stop := p.start()
	p.ship(w.node, w.boot, w.frame(1, 30))
	p.cosigned(l, w.author, 30)
	must(t, l.Take(erasure(w.node, w.boot, toldErased...)))
	until(t, "stream erased", func() bool {
		frames := p.stored(w.author)
		if len(frames) != 1 {
			return false
		}
		b, err := audit.DecodeBatch(frames[0])
		return err == nil && b.Last() == 30 && len(b.Entries[4].Parts) == 0 && len(b.Entries[3].Parts) > 0
	})
	if files := found(t, "secret-5", p.conf.Dir, p.dir); len(files) > 0 {
		t.Errorf("still in %v", files)
	}
	stop()
	p.ship(w.node, w.boot, w.frame(31, 35))
	l, _ = p.start()
	p.cosigned(l, w.author, 35)
}

// Nobody erases what is yet to come.
func TestErasureOfTheFuture(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	l, _ := p.start()
	doc := erasure(w.node, w.boot, audit.Range{From: 1, To: 1 << 40})
	doc.Until = 1
	must(t, l.Take(doc))
	p.ship(w.node, w.boot, w.frame(1, 30))
	p.cosigned(l, w.author, 30)
	until(t, "done", done(l, doc))
	if len(found(t, "secret-5", p.dirs[0])) == 0 {
		t.Error("the request is gone")
	}
}

// Records that come after the erasure of them come without parts: from the node,
// from a peer, as evidence.
func TestErasedRecordsComeLate(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	l, _ := p.startServer(0, leads)
	behind, stop := p.startServer(1, follows)
	doc := erasure(w.node, w.boot, toldErased...)
	must(t, l.Take(doc))
	until(t, "done", done(l, doc))
	p.ship(w.node, w.boot, w.frame(1, 10), w.frame(11, 30))
	p.cosigned(l, w.author, 30)
	until(t, "archived by the other", func() bool { return behind.Has(w.node, w.boot, 30) })
	if n := len(found(t, "secret-5", p.dirs[1])); n != 1 {
		t.Fatalf("%d files of the server that does not know yet", n)
	}
	w.answer()
	p.ship(w.node, w.boot, w.frame(31, 31))
	until(t, "done again", done(l, doc))
	checkTold(t, p.dirs[0], p.keys, doc)

	// A server that lost its folder gets it from the one that does not know yet.
	must(t, os.RemoveAll(filepath.Join(p.dirs[2], nodesDir)))
	third, _ := p.startServer(2, follows)
	must(t, third.Take(doc))
	until(t, "fetched", func() bool {
		b := third.Status().Boots
		return len(b) == 1 && b[0].Held == 31 && len(b[0].Missing) == 0
	})
	until(t, "done by the third", done(third, doc))
	checkTold(t, p.dirs[2], p.keys, doc)
	stop()

	// A batch that is refused is kept without what is erased.
	fork := &writer{author: w.fork(4)}
	for range 3 {
		fork.decide("ada", words("secret-fork", 100))
	}
	p.ship(w.node, w.boot, fork.frame(1, 7))
	until(t, "refused", func() bool { return l.Status().Evidence == 1 })
	if files := found(t, "secret-fork", p.dirs[0]); len(files) > 0 {
		t.Errorf("still in %v", files)
	}
}

// A hold keeps records from being erased, from its coming until two persons have
// ended it; what was refused stays refused.
func TestEraseUnderHold(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	w.answer()
	l, stop := p.start()
	p.ship(w.node, w.boot, w.frame(1, 31))
	p.cosigned(l, w.author, 31)
	hold := Document{Digest: wire.Sum([]byte("h")), Envelope: []byte("h"), Hold: &audit.Hold{ID: "case-7", Subject: wire.Sum([]byte("user:ada")), From: 6, To: 6}}
	must(t, l.Take(hold))
	doc, elsewhere := erasure(w.node, w.boot, toldErased...), erasure(w.node, w.boot, audit.Range{From: 10, To: 11})
	must(t, l.Take(doc))
	select {
	case a := <-p.alarms:
		if a.Reason != "under-hold" || !strings.Contains(a.Text, "record 6 of e1/") || !strings.Contains(a.Text, "case-7") {
			t.Errorf("%+v", a)
		}
	default:
		t.Error("no alarm")
	}
	kept := func(erased ...audit.Range) {
		t.Helper()
		if len(found(t, "secret-5", p.dir)) == 0 {
			t.Error("erased under hold")
		}
		if files, _ := filepath.Glob(filepath.Join(p.dir, evidenceDir, "under-hold-*.dsse")); len(files) != 1 {
			t.Errorf("evidence: %v", files)
		}
		r, _ := verified(t, p.dir, p.keys, doc, elsewhere)
		if b := r.Nodes[0].Boots[0]; r.Verdict != audit.VerdictComplete || !slices.Equal(b.Erased, erased) || len(b.NotErased) > 0 {
			t.Errorf("%s %+v", r.Verdict, b)
		}
	}
	kept()
	stop()
	l, _ = p.start()
	must(t, l.Take(elsewhere))
	until(t, "what is not held is erased", done(l, elsewhere))
	must(t, l.Take(Document{Digest: wire.Sum([]byte("r")), Envelope: []byte("r"), Release: []wire.Digest{hold.Digest}}))
	must(t, l.Take(doc)) // the region's stream brings it again at every start
	kept(elsewhere.Erase[0].Ranges...)
	again := erasure(w.node, w.boot, toldErased...)
	again.Digest = wire.Sum([]byte("again"))
	again.Envelope = []byte("again")
	must(t, l.Take(again))
	until(t, "erased after the hold", done(l, again))
	if files := found(t, "secret-5", p.dir); len(files) > 0 {
		t.Errorf("still in %v", files)
	}
}

// A hold that comes before the records do keeps those that an older erasure names.
func TestHoldKeepsWhatComesLate(t *testing.T) {
	p := newPlace(t)
	w := told(t, p.keys)
	w.answer()
	l, _ := p.start()
	doc := erasure(w.node, w.boot, toldErased...)
	must(t, l.Take(doc))
	hold := Document{Digest: wire.Sum([]byte("h")), Envelope: []byte("h"), Hold: &audit.Hold{ID: "case-7", From: 6, To: 6}}
	must(t, l.Take(hold))
	p.ship(w.node, w.boot, w.frame(1, 31))
	p.cosigned(l, w.author, 31)
	until(t, "parts erased", func() bool { return len(found(t, "secret-5", p.dir)) == 0 })
	r, records := verified(t, p.dir, p.keys, doc)
	if b := r.Nodes[0].Boots[0]; len(b.Missing) > 0 || !slices.Equal(b.NotErased, []audit.Range{{From: 6, To: 6}}) || !bytes.Equal(records[6].Decision.Request.Bytes, words("secret-6", 20_000)) {
		t.Errorf("missing %v, not erased %v", b.Missing, b.NotErased)
	}
}

// quiet is an Input that brings nothing.
type quiet struct{}

func (quiet) Records(ctx context.Context, _ string, _ func(string, string, []byte) error, _ func(string) error) error {
	<-ctx.Done()
	return ctx.Err()
}
func (quiet) Stored(context.Context, string, string, uint64, func([]byte) bool) error { return nil }
func (quiet) Receipt(context.Context, string, string, func([]byte) ([]byte, error)) error {
	return nil
}

// offline opens a ledger without a region and runs it.
func offline(t testing.TB, dir string, keys *audit.Keys, key note.Signer, step func(string)) (l *Ledger, stop func()) {
	t.Helper()
	l, err := Open(Config{Dir: dir, Tenant: tenant, Region: "ra", Key: key, Keys: keys, Input: quiet{}, Step: step})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	return l, func() { cancel(); running.Wait() }
}

// What is damaged keeps nothing of what is erased: neither the batch that is set
// aside, when it cannot be read, nor the blobs that lay beside it.
func TestEraseWhatIsDamaged(t *testing.T) {
	key, vkey := signer(t, audit.RegionKeyName(tenant, "ra"))
	keys := &audit.Keys{}
	must(t, keys.AddRegion(vkey))
	w := told(t, keys)
	w.answer()
	doc := erasure(w.node, w.boot, toldErased...)
	dir := t.TempDir()
	for _, b := range []*audit.Batch{w.batch(1, 10), w.batch(11, 20), w.batch(21, 31)} {
		must(t, archive(dir).keep(b))
	}
	l, stop := offline(t, dir, keys, key, nil)
	path := filepath.Join(archive(dir).boot(w.node, w.boot), span{1, 10}.file())
	frame, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, frame[:len(frame)-10], 0o600))
	must(t, l.Take(doc))
	until(t, "set aside, and erased", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, evidenceDir, "damaged-*.batch"))
		_, gone := os.Stat(path)
		return err == nil && len(files) == 0 && errors.Is(gone, fs.ErrNotExist)
	})
	until(t, "without the blob that only one record uses", func() bool { return len(found(t, "secret-7", dir)) == 0 })
	if len(found(t, "declaration ", dir)) == 0 {
		t.Error("what other records use is gone")
	}
	for _, b := range []*audit.Batch{w.batch(1, 5), w.batch(6, 10)} { // fetched, with other bounds
		l.do(t.Context(), bootKey{w.node, w.boot}, func() { must(t, l.store(b, nil)) })
	}
	until(t, "done", done(l, doc))
	stop()
	checkTold(t, dir, keys, doc)
	if files := found(t, "secret-", dir); len(files) > 0 {
		t.Error(files)
	}
}

const (
	killDir  = "HOLDFAST_ERASE_KILL_DIR"
	killStep = "HOLDFAST_ERASE_KILL_STEP"
	killKeys = "HOLDFAST_ERASE_KILL_KEYS"
)

// eraseAndDie is the process that TestKilledErasure kills: a ledger without its
// stream that carries the erasure out, and kills itself at a step.
func eraseAndDie(dir string) error {
	keys, err := audit.ParseKeys([]byte(os.Getenv(killKeys)))
	if err != nil {
		return err
	}
	secret, _, err := note.GenerateKey(crand.Reader, audit.RegionKeyName(tenant, "ra"))
	if err != nil {
		return err
	}
	key, err := note.NewSigner(secret)
	if err != nil {
		return err
	}
	left, err := strconv.Atoi(os.Getenv(killStep))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	l, err := Open(Config{Dir: dir, Tenant: tenant, Region: "ra", Key: key, Keys: keys, Input: quiet{}, Step: func(string) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go l.Run(ctx)
	doc := erasure("e1", audit.BootID(1, 0xfeed), toldErased...)
	if err := l.Take(doc); err != nil {
		return err
	}
	for finished := done(l, doc); !finished(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			return fmt.Errorf("the erasure is not carried out: %w", ctx.Err())
		}
	}
	return nil
}

// Killed with SIGKILL at each step of an erasure, the ledger carries it out when
// it starts again, and at no moment is anything half.
func TestKilledErasure(t *testing.T) {
	key, vkey := signer(t, audit.RegionKeyName(tenant, "ra"))
	keys := &audit.Keys{}
	must(t, keys.AddRegion(vkey))
	w := told(t, keys)
	w.answer()
	doc := erasure(w.node, w.boot, toldErased...)
	for step := 1; ; step++ {
		dir := t.TempDir()
		for _, b := range []*audit.Batch{w.batch(1, 10), w.batch(11, 20), w.batch(21, 31)} {
			must(t, archive(dir).keep(b))
		}
		// What a crash before may have left of writing a batch.
		must(t, os.WriteFile(filepath.Join(archive(dir).boot(w.node, w.boot), "x.batch.tmp"), w.frame(1, 10), 0o600))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir, killStep+"="+strconv.Itoa(step), killKeys+"="+string(keys.File()))
		out, err := cmd.CombinedOutput()
		if err == nil {
			if step < 6 {
				t.Fatalf("only %d steps", step)
			}
			return
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: %v\n%s", step, err, out)
		}
		r, _ := verified(t, dir, keys, doc)
		if b := r.Nodes[0].Boots[0]; r.Verdict != audit.VerdictComplete && len(b.Erased) > 0 || len(b.Gaps)+len(b.Altered) > 0 {
			t.Errorf("step %d, as it was left: %s, missing %v, %v", step, r.Verdict, b.Missing, r.Problems)
		}
		l, stop := offline(t, dir, keys, key, nil)
		if step == 1 {
			must(t, l.Take(doc)) // the region's stream brings it again
		}
		must(t, l.Take(doc))
		until(t, "done", done(l, doc))
		stop()
		checkTold(t, dir, keys, doc)
		for _, secret := range []string{"secret-5", "secret-6", "secret-7"} {
			if files := found(t, secret, dir); len(files) > 0 {
				t.Errorf("step %d: %s still in %v", step, secret, files)
			}
		}
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	key, _ := signer(t, audit.RegionKeyName(tenant, "ra"))
	l, stop := offline(t, t.TempDir(), &audit.Keys{}, key, nil)
	defer stop()
	if err := l.Take(Document{Digest: wire.Sum([]byte("x")), Envelope: make([]byte, maxDocumentBytes), Release: []wire.Digest{{}}}); err == nil {
		t.Error("a document beyond every bound is kept")
	}
	l.documents.mu.Lock()
	for i := range maxDocuments {
		l.documents.known[wire.Sum([]byte(strconv.Itoa(i)))] = &keptDocument{}
	}
	l.documents.mu.Unlock()
	must(t, l.Take(erasure("e1", audit.BootID(1, 1), audit.Range{From: 1, To: 1})))
	if n := len(l.Documents()); n != maxDocuments {
		t.Errorf("%d documents", n)
	}
}
