package audit

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// shapes are what records and batches look like on the wire.
var shapes = sync.OnceValue(func() (s struct{ record, batch *wire.Shape }) {
	s.record, s.batch = wire.NewShape[Record, Part](), wire.NewShape[Batch, Part]()
	return s
})

// An opened is one batch on its way through the verification: it is opened and
// proven beside others, its blobs are noted in order, its parts are checked
// beside others, and what was found is taken in order.
type opened struct {
	name       string
	first, end uint64 // of the name; what follows it

	size       int    // of the file
	batch      *Batch // nil when it does not decode
	checkpoint Checkpoint
	leaves     []tlog.Hash
	after      *Frontier
	err        error // why it is not proven
	beside     error // what is wrong with its blobs' file
	blobs      []introduced

	windows []reach // that its records may refer to
	found   []found
}

// introduced is a blob that a record brings, or the room that one took which was
// erased, or the end of all before it.
type introduced struct {
	seq    uint64
	id     BlobID
	bytes  []byte
	room   uint64
	forget bool
}

// reach is the window to which the records from one on may refer.
type reach struct {
	from   uint64
	window *blobWindow
}

// found is what is known of one proven record.
type found struct {
	kind    Kind
	missing bool    // a part is not there
	record  *Record // when somebody wants it
	err     error   // why it is not what was signed
}

// open reads and proves a batch. Its name says that it begins with first.
func (b *bootVerifier) open(name string, first, end uint64) *opened {
	o := &opened{name: name, first: first, end: end}
	if o.batch, o.size, o.err = b.decode(name, first); o.err != nil {
		return o
	}
	key := b.keys.Node(o.batch.Tenant, o.batch.Node)
	if key == nil {
		o.err = fmt.Errorf("no public key for %s", NodeKeyName(o.batch.Tenant, o.batch.Node))
		return o
	}
	if o.checkpoint, o.leaves, o.after, o.err = o.batch.prove(key); o.err != nil {
		return o
	}
	o.beside = b.join(o.batch, name)
	for i := range o.batch.Entries {
		o.introduces(first+uint64(i), &o.batch.Entries[i])
	}
	return o
}

func (o *opened) introduces(seq uint64, e *Entry) {
	if e.forgets() {
		o.blobs = append(o.blobs, introduced{seq: seq, forget: true})
	}
	gone := e.Gone
	for _, blob := range e.Blobs {
		if len(blob) == 0 && len(gone) > 0 {
			o.blobs = append(o.blobs, introduced{seq: seq, room: gone[0]})
			gone = gone[1:]
			continue
		}
		o.blobs = append(o.blobs, introduced{seq: seq, id: NameBlob(blob), bytes: blob})
	}
}

func (b *bootVerifier) decode(name string, first uint64) (*Batch, int, error) {
	frame, err := readFile(b.fsys, name, MaxFrameBytes)
	if err != nil {
		return nil, len(frame), err
	}
	batch, err := DecodeBatch(frame)
	if err != nil {
		return nil, len(frame), err
	}
	if batch.Node != b.node || batch.Boot != b.boot || batch.First != first {
		return nil, len(frame), fmt.Errorf("the batch of %s/%s from %d", batch.Node, batch.Boot, batch.First)
	}
	return batch, len(frame), nil
}

// join gives the batch the blobs that lie beside it.
func (b *bootVerifier) join(batch *Batch, name string) error {
	beside := besideOf(name)
	if !b.sides[beside] {
		return nil
	}
	frame, err := readFile(b.fsys, beside, MaxBatchBytes)
	if err != nil {
		return err
	}
	side, err := DecodeSide(frame)
	if err != nil {
		return err
	}
	return batch.Join(side)
}

func besideOf(name string) string { return strings.TrimSuffix(name, batchSuffix) + sideSuffix }

func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return content, err
}

// A blobWindow is a Window that several goroutines read while it grows: a record
// finds what was introduced before it, whatever came since.
type blobWindow struct {
	number uint64
	mu     sync.RWMutex // guards what follows
	blobs  map[BlobID]introduced
	bytes  int
}

func (w *blobWindow) find(seq uint64, id BlobID) []byte {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if in, ok := w.blobs[id]; ok && in.seq < seq {
		return in.bytes
	}
	return nil
}

// keep is Window.keep.
func (w *blobWindow) keep(in introduced) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if in.room > 0 {
		if fits(w.bytes, in.room) {
			w.bytes += int(in.room)
		}
		return
	}
	have, there := w.blobs[in.id]
	switch {
	case there && have.seq <= in.seq, len(in.bytes) > MaxShared, !there && !fits(w.bytes, uint64(len(in.bytes))):
		return
	case !there:
		w.bytes += len(in.bytes)
	}
	in.bytes = slices.Clone(in.bytes)
	w.blobs[in.id] = in
}

// note has the batch's windows take its blobs. Batches come in order.
func (b *bootVerifier) note(o *opened) *opened {
	if o.err != nil {
		return o
	}
	o.reaches(o.batch.First, b.enter(o.batch.First))
	for _, in := range o.blobs {
		w := b.enter(in.seq)
		if in.forget {
			w = b.forget()
		} else {
			w.keep(in)
		}
		o.reaches(in.seq, w)
	}
	if last := o.batch.Last(); b.enter(last) != o.window(last) {
		o.reaches(last-(last-1)%WindowRecords, b.window)
	}
	o.blobs = nil
	return o
}

func (b *bootVerifier) enter(seq uint64) *blobWindow {
	if n := (seq - 1) / WindowRecords; b.window == nil || b.window.number != n {
		b.window = &blobWindow{number: n, blobs: map[BlobID]introduced{}}
	}
	return b.window
}

// forget empties the window for what comes; what came before keeps what it had.
func (b *bootVerifier) forget() *blobWindow {
	b.window = &blobWindow{number: b.window.number, blobs: map[BlobID]introduced{}}
	return b.window
}

// reaches notes that the records from one on may refer to w.
func (o *opened) reaches(from uint64, w *blobWindow) {
	if n := len(o.windows); n > 0 && o.windows[n-1].window == w {
		return
	}
	if len(o.windows) > 0 && w.number != o.windows[len(o.windows)-1].window.number {
		from = w.number*WindowRecords + 1 // a window begins where it does, whoever uses it first
	}
	o.windows = append(o.windows, reach{from, w})
}

// window is the one to which record seq may refer.
func (o *opened) window(seq uint64) *blobWindow {
	for _, r := range slices.Backward(o.windows) {
		if r.from <= seq {
			return r.window
		}
	}
	return o.windows[0].window
}

// inspect checks the batch's records and their parts.
func (b *bootVerifier) inspect(o *opened) *opened {
	if o.err != nil {
		return o
	}
	o.found = make([]found, len(o.batch.Entries))
	var s scanner
	for i := range o.batch.Entries {
		seq, e, f := o.first+uint64(i), &o.batch.Entries[i], &o.found[i]
		find := func(id BlobID) []byte { return o.window(seq).find(seq, id) }
		if !b.wanted(seq) && s.scan(e, seq, find) {
			f.kind, f.missing = s.kind, s.missing
			continue
		}
		var r *Record
		if r, f.err = e.Record(find); f.err == nil && r.Seq != seq {
			f.err = fmt.Errorf("record %d at the place of %d", r.Seq, seq)
		}
		if f.err == nil {
			f.kind, f.missing, f.record = r.Kind, slices.ContainsFunc(r.Parts(), (*Part).Missing), r
		}
	}
	return o
}

// wanted reports whether somebody wants a record as a value.
func (b *bootVerifier) wanted(seq uint64) bool {
	return seq == 1 || b.options.Records != nil
}

// A scanner looks at a record without making one.
type scanner struct {
	parts   [][]byte
	kind    Kind
	missing bool
}

// scan reports whether the entry is a record of that seq with parts that are what
// its leaf names, or not there. What it is not sure of is left to Entry.Record.
func (s *scanner) scan(e *Entry, seq uint64, find func(BlobID) []byte) (ok bool) {
	if s.parts, ok = shapes().record.Check(e.Leaf, s.parts[:0]); !ok {
		return false
	}
	if s.kind, ok = peek(e.Leaf, seq); !ok || len(e.Parts) > len(s.parts) || len(e.Key) != 0 && len(e.Key) != PartKeyBytes {
		return false
	}
	s.missing = false
	find = e.finder(find)
	for i, raw := range s.parts {
		p, ok := peekPart(raw)
		if !ok {
			return false
		}
		if i < len(e.Parts) && e.attach(&p, e.Parts[i], find) != nil {
			return false
		}
		s.missing = s.missing || p.Missing()
	}
	return true
}

// peek reads the kind of a record whose form was checked, and reports whether it
// has that seq and exactly the body of its kind.
func peek(leaf []byte, seq uint64) (Kind, bool) {
	const four = 0xa4 // a map of seq, kind, time and one body
	if leaf[0] != four {
		return 0, false
	}
	n, rest, ok := wire.CutUint(leaf[2:]) // behind the key 1
	if !ok || n != seq {
		return 0, false
	}
	kind, rest, ok := wire.CutUint(rest[1:])
	if !ok || len(rest) < 2 || kind < uint64(KindDecision) || kind > uint64(KindResult) {
		return 0, false
	}
	size := 1
	if low := rest[1] & 31; low >= 24 {
		size += 1 << (low - 24)
	}
	rest = rest[1+size:] // behind the key 3 and the time
	return Kind(kind), len(rest) > 0 && rest[0] == byte(kind)+3
}

func peekPart(raw []byte) (p Part, ok bool) {
	const digestAt, sizeAt = 4, 4 + len(wire.Digest{}) + 1 // a2 01 58 20 DIGEST 02 SIZE
	if len(raw) <= sizeAt {
		return p, false
	}
	p.Digest = wire.Digest(raw[digestAt:])
	var rest []byte
	p.Size, rest, ok = wire.CutUint(raw[sizeAt:])
	return p, ok && len(rest) == 0
}

// take takes what was found of a batch, in order.
func (b *bootVerifier) take(o *opened) {
	defer b.progress(o)
	if o.err == nil {
		o.err = b.ofTenant(o.checkpoint.Tenant)
	}
	if o.err == nil {
		b.signed(o.checkpoint)
	}
	if o.beside != nil {
		b.damaged(besideOf(o.name), "%v", o.beside)
	}
	if o.err != nil {
		b.refuse(o)
		return
	}
	switch before := o.batch.before(); {
	case o.first > b.seen+1:
		b.missing(Range{b.seen + 1, o.first - 1})
	case o.first <= b.seen:
		b.overlap(o.batch, o.leaves)
	case b.proven && before.Root() != b.tree.Root():
		b.contradicts(Range{o.first, o.batch.Last()}, o.name+" does not continue what was signed before it")
	}
	b.follow(o)
}

// refuse takes a batch that is not proven: its place ends where the next begins,
// when its own word is worth nothing.
func (b *bootVerifier) refuse(o *opened) {
	b.problem(o.name, "%v", o.err)
	if o.first > b.seen+1 {
		b.missing(Range{b.seen + 1, o.first - 1})
	}
	end := o.end
	if o.batch != nil && o.batch.Last() < end {
		end = o.batch.Last()
	}
	b.alter(Range{o.first, end})
	b.proven, b.seen = false, max(b.seen, end)
}

// follow takes the records that are new, and checks every claim about a size
// within the batch.
func (b *bootVerifier) follow(o *opened) {
	b.claimed(o)
	proven := Proven{Node: b.node, Boot: b.boot}
	for i := range o.found {
		seq := o.first + uint64(i)
		if seq <= b.seen {
			continue
		}
		if b.record(o, i) && b.options.Records != nil {
			proven.Records = append(proven.Records, o.found[i].record)
			proven.Leaves = append(proven.Leaves, o.leaves[i])
		}
		b.out.To = seq
	}
	if len(proven.Records) > 0 {
		b.options.Records(proven)
	}
	last := o.batch.Last()
	b.spans = append(b.spans, span{Range{o.first, last}, o.name})
	if last >= b.seen {
		b.tree, b.proven, b.seen = *o.after, true, last
	}
}

// claimed settles the claims up to the batch's last record.
func (b *bootVerifier) claimed(o *opened) {
	tree := o.batch.before()
	b.settle(tree)
	for _, leaf := range o.leaves {
		if b.next == len(b.claims) || b.claims[b.next].size > o.after.Size() {
			return
		}
		tree.Append(leaf)
		b.settle(tree)
	}
}

// record takes what was found of the batch's i-th record.
func (b *bootVerifier) record(o *opened, i int) (proven bool) {
	seq, f := o.first+uint64(i), &o.found[i]
	if f.err != nil {
		b.problem(o.name, "%v", f.err)
		b.alter(Range{seq, seq})
		return false
	}
	if b.out.From == 0 {
		b.out.From = seq
	}
	if f.missing {
		b.absent(seq, o.batch.Entries[i])
	} else {
		b.present(seq, o.batch.Entries[i])
	}
	if seq == 1 {
		b.begin(f.record, o.batch, o.name)
	}
	b.out.Records[f.kind.String()]++
	return true
}

func (b *bootVerifier) where() string { return path.Join(nodesFolder, b.node, b.boot) }
