package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Document is a signed document about records, which the caller has verified:
// exactly one of Erase, Hold and Release is set.
type Document struct {
	// Digest is the document's name, Envelope what was signed, for who asks.
	Digest   wire.Digest `cbor:"1,keyasint"`
	Envelope []byte      `cbor:"2,keyasint"`
	// Erase are records whose parts are taken out.
	Erase []audit.Records `cbor:"3,keyasint,omitempty"`
	// Until is the latest time of a record that is erased: see audit.Removal.
	Until int64 `cbor:"6,keyasint,omitempty"`
	// Hold keeps records from being erased or deleted.
	Hold *audit.Hold `cbor:"4,keyasint,omitempty"`
	// Release are holds that end, by digest.
	Release []wire.Digest `cbor:"5,keyasint,omitempty"`
}

// A kept document is one that this ledger has taken.
type keptDocument struct {
	Document `cbor:"1,keyasint"`
	// Taken is when, in nanoseconds since 1970, by this server's clock.
	Taken int64 `cbor:"2,keyasint"`
	// Refused is why an erasure is not carried out: it stays so.
	Refused string `cbor:"3,keyasint,omitempty"`
}

// Bounds of what a ledger keeps of documents.
const (
	maxDocuments     = 1 << 16
	maxDocumentBytes = 4 << 20
)

const (
	documentsDir = "documents"
	documentFile = ".document"
	doneFile     = ".done" // the erasure is carried out on all that is here
)

// documents are what a ledger knows of erasures and holds.
type documents struct {
	taking   sync.Mutex // held while a document is taken, over its I/O: one at a time
	deleting sync.Mutex // held while what sweeps name is deleted: Expire and the erasures do

	mu       sync.Mutex // guards what follows
	known    map[wire.Digest]*keptDocument
	removed  *audit.Removed // by all erasures and sweeps; replaced, never changed
	swept    []audit.Records
	sweeping []*audit.Sweep // of which something may be left
	released map[wire.Digest]bool
	todo     map[wire.Digest]bool // erasures that are not done
	late     map[wire.Digest]bool // those of todo of which records came since undone
	wake     chan struct{}
}

func (d *documents) open(a archive) error {
	d.known, d.released = map[wire.Digest]*keptDocument{}, map[wire.Digest]bool{}
	d.todo, d.late = map[wire.Digest]bool{}, map[wire.Digest]bool{}
	d.removed, d.wake = &audit.Removed{}, make(chan struct{}, 1)
	entries, err := os.ReadDir(filepath.Join(string(a), documentsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), documentFile) {
			continue
		}
		k, err := readDocument(filepath.Join(string(a), documentsDir, e.Name()))
		if err != nil {
			return fmt.Errorf("document %s: %w; take it away, and it is read from the region's stream again", e.Name(), err)
		}
		_, err = os.Stat(a.document(k.Digest, doneFile))
		d.add(k, err == nil)
	}
	return err
}

func readDocument(path string) (*keptDocument, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k := &keptDocument{}
	return k, wire.Unmarshal(raw, k)
}

func (a archive) document(d wire.Digest, suffix string) string {
	return filepath.Join(string(a), documentsDir, d.Hex()+suffix)
}

// add takes a document into account.
func (d *documents) add(k *keptDocument, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[k.Digest] = k
	for _, h := range k.Release {
		d.released[h] = true
	}
	if len(k.Erase) > 0 && k.Refused == "" {
		d.sum()
		if !done {
			d.todo[k.Digest] = true
		}
	}
}

// sum makes the set of all that is removed anew. The lock is held.
func (d *documents) sum() {
	next := &audit.Removed{}
	for _, k := range d.known {
		if k.Refused == "" {
			next.Add(audit.Removal{Records: k.Erase, Until: k.Until})
		}
	}
	next.Add(audit.Removal{Records: d.swept})
	d.removed = next
}

// erased are the records whose parts are to be nowhere. It must not be changed.
func (d *documents) erased() *audit.Removed {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removed
}

// holds are the holds in force.
func (d *documents) holds() (out []audit.Hold) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for digest, k := range d.known {
		if k.Hold != nil && !d.released[digest] {
			out = append(out, *k.Hold)
		}
	}
	slices.SortFunc(out, func(a, b audit.Hold) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// heldBy returns the hold that keeps a record, if there is one.
func heldBy(holds []audit.Hold, node string, r *audit.Record) (audit.Hold, bool) {
	for _, h := range holds {
		if h.Covers(node, r) {
			return h, true
		}
	}
	return audit.Hold{}, false
}

// Take takes a document, once; a nil error means that it is on disk. An erasure
// of records that a hold keeps is refused for good: it is kept as evidence, an
// alarm tells of it. Another one is carried out in the background, on what is
// here and on what comes. Err is about this machine.
func (l *Ledger) Take(doc Document) error {
	d := &l.documents
	d.taking.Lock()
	defer d.taking.Unlock()
	d.mu.Lock()
	_, known := d.known[doc.Digest]
	full := len(d.known) >= maxDocuments
	d.mu.Unlock()
	switch {
	case known:
		return nil
	case full:
		l.alarm(bootKey{}, documentsFull, fmt.Sprintf("%d documents are kept; %s is not taken", maxDocuments, doc.Digest))
		return nil
	}
	k := &keptDocument{Document: doc, Taken: time.Now().UnixNano()}
	if len(doc.Erase) > 0 {
		held, err := l.held(doc.Erase)
		if err != nil {
			return err
		}
		k.Refused = held
	}
	if err := l.keepDocument(k); err != nil {
		return err
	}
	l.cfg.Step("document kept")
	d.add(k, false)
	switch {
	case k.Refused != "":
		l.cfg.Log.Error("erasure refused", "erasure", doc.Digest.String(), "why", k.Refused)
		l.cfg.Alarm(Alarm{Reason: string(underHold), Text: doc.Digest.String() + ": " + k.Refused})
	case len(doc.Erase) > 0:
		l.cfg.Log.Warn("erasure", "erasure", doc.Digest.String())
		wake(d.wake)
	case doc.Hold != nil:
		l.cfg.Log.Warn("hold in force", "hold", doc.Digest.String(), "id", doc.Hold.ID)
	default:
		l.cfg.Log.Warn("holds end", "release", doc.Digest.String())
		wake(d.wake)
	}
	return nil
}

func (l *Ledger) keepDocument(k *keptDocument) error {
	if err := makeDir(filepath.Join(l.cfg.Dir, documentsDir)); err != nil {
		return err
	}
	raw, err := wire.Marshal(k)
	if err != nil {
		return err
	}
	if len(raw) > maxDocumentBytes {
		return fmt.Errorf("document %s of %d bytes; at most %d", k.Digest, len(raw), maxDocumentBytes)
	}
	if k.Refused != "" {
		path := filepath.Join(l.cfg.Dir, evidenceDir, string(underHold)+"-"+k.Digest.Hex())
		if err := errors.Join(create(path+".dsse", k.Envelope), replace(path+".txt", []byte(k.Refused+"\n"))); err != nil {
			return err
		}
	}
	return replace(l.archive.document(k.Digest, documentFile), raw)
}

// held says which hold keeps one of the records, as far as they are here.
func (l *Ledger) held(erase []audit.Records) (why string, err error) {
	holds := l.documents.holds()
	if len(holds) == 0 {
		return "", nil
	}
	for _, r := range erase {
		spans, err := l.archive.spans(r.Node, r.Boot)
		if err != nil {
			return "", err
		}
		for _, s := range spans {
			if !audit.Overlaps(r.Ranges, s.first, s.last) {
				continue
			}
			if why := l.heldIn(r, s, holds); why != "" {
				return why, nil
			}
		}
	}
	return "", nil
}

func (l *Ledger) heldIn(r audit.Records, s span, holds []audit.Hold) string {
	b, err := l.archive.read(r.Node, r.Boot, s)
	if err != nil {
		return "" // damage, which the scrub finds
	}
	for i, e := range b.Entries {
		if !audit.Contains(r.Ranges, b.First+uint64(i)) {
			continue
		}
		record, err := e.Record(nil)
		if err != nil {
			continue
		}
		if h, is := heldBy(holds, r.Node, record); is {
			return fmt.Sprintf("record %d of %s/%s is under hold %s", record.Seq, r.Node, r.Boot, h.ID)
		}
	}
	return ""
}

// A DocumentStatus is what became of a document.
type DocumentStatus struct {
	Digest  wire.Digest
	Kind    string // erasure, hold or release
	Taken   time.Time
	Refused string // why an erasure is not carried out
	// Done: an erasure is carried out on all that is here, a hold has ended.
	Done bool
}

// Documents lists what was taken, oldest first.
func (l *Ledger) Documents() (out []DocumentStatus) {
	d := &l.documents
	d.mu.Lock()
	defer d.mu.Unlock()
	for digest, k := range d.known {
		s := DocumentStatus{Digest: digest, Kind: "release", Taken: time.Unix(0, k.Taken), Refused: k.Refused}
		switch {
		case len(k.Erase) > 0:
			s.Kind, s.Done = "erasure", k.Refused == "" && !d.todo[digest]
		case k.Hold != nil:
			s.Kind, s.Done = "hold", d.released[digest]
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b DocumentStatus) int { return a.Taken.Compare(b.Taken) })
	return out
}

// Outcome says what the ledger that is kept in the folder dir has made of an
// erasure: whether it is carried out, or why it is refused; neither while it is
// not known yet or waits.
func Outcome(dir string, digest wire.Digest) (done bool, refused string, err error) {
	a := archive(dir)
	k, err := readDocument(a.document(digest, documentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	_, err = os.Stat(a.document(digest, doneFile))
	return err == nil, k.Refused, ignoreMissing(err)
}

// exportDocuments writes every document that was taken, as it was signed, but
// for erasures that were refused: they explain nothing.
func (a archive) exportDocuments(w *audit.ExportWriter) error {
	entries, err := os.ReadDir(filepath.Join(string(a), documentsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), documentFile) {
			continue
		}
		k, err := readDocument(filepath.Join(string(a), documentsDir, e.Name()))
		if err != nil || k.Refused != "" {
			continue
		}
		if err := w.Document(k.Envelope); err != nil {
			return err
		}
	}
	return err
}
