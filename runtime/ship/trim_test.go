package ship_test

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A desk is a region that takes everything, and counter-signs what the test says.
type desk struct {
	key  note.Signer
	node note.Verifier

	mu       sync.Mutex
	frames   []*audit.Batch
	receipts [][]byte
	more     chan struct{}
}

func (d *desk) Head(_ context.Context, node, boot string) (uint64, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := uint64(0)
	for _, b := range d.frames {
		if b.Boot == boot {
			last = b.Last()
		}
	}
	return last, uint64(len(d.frames)), nil
}

func (d *desk) Publish(_ context.Context, node, boot string, fence uint64, frame []byte) (uint64, error) {
	b, err := audit.DecodeBatch(frame)
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b.Entries = b.Entries[:0:len(b.Entries)]
	b.Entries = append(b.Entries, make([]audit.Entry, cap(b.Entries))...) // their number is enough
	d.frames = append(d.frames, b)
	return uint64(len(d.frames)), nil
}

func (d *desk) Receipts(ctx context.Context, _ string, f func([]byte)) error {
	for given := 0; ; {
		d.mu.Lock()
		fresh, more := d.receipts[given:], d.more
		d.mu.Unlock()
		for _, r := range fresh {
			f(r)
		}
		given += len(fresh)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

func (d *desk) sign(t *testing.T, checkpoint []byte) {
	t.Helper()
	receipt, err := audit.Cosign(checkpoint, d.node, d.key)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.receipts = append(d.receipts, receipt)
	close(d.more)
	d.more = make(chan struct{})
}

// A plot is a journal of many small records, and two desks.
type plot struct {
	t       *testing.T
	dir     string
	key     note.Signer
	journal *journal.Journal
	desks   map[string]*desk
	vkeys   map[string]string
	shipper *ship.Shipper
	config  ship.Config
}

func newPlot(t *testing.T) *plot {
	t.Helper()
	p := &plot{t: t, dir: t.TempDir(), desks: map[string]*desk{}, vkeys: map[string]string{}}
	key, vkey, err := journal.LoadOrCreateKey(filepath.Join(p.dir, "log.key"), audit.NodeKeyName(tenant, node))
	p.must(err)
	p.key = key
	verifier, err := note.NewVerifier(vkey)
	p.must(err)
	p.config = ship.Config{Node: node, Key: verifier}
	for _, name := range []string{"ra", "rb"} {
		skey, vkey, err := note.GenerateKey(rand.Reader, audit.RegionKeyName(tenant, name))
		p.must(err)
		d := &desk{node: verifier, more: make(chan struct{})}
		d.key, err = note.NewSigner(skey)
		p.must(err)
		region, err := note.NewVerifier(vkey)
		p.must(err)
		p.desks[name], p.vkeys[name] = d, vkey
		p.config.Regions = append(p.config.Regions, ship.Region{Name: name, Key: region, Sink: d})
	}
	p.open()
	return p
}

func (p *plot) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *plot) open() {
	p.t.Helper()
	j, err := openSmall(p.dir, p.key)
	p.must(err)
	p.journal = j
	p.t.Cleanup(func() { j.Close() })
}

func (p *plot) ship() {
	p.t.Helper()
	p.config.Journal = p.journal
	var err error
	p.shipper, err = ship.New(p.config)
	p.must(err)
	background(p.t, func(ctx context.Context) { p.shipper.Run(ctx) })
}

// fill appends small records until the boot has size.
func (p *plot) fill(size uint64) {
	p.t.Helper()
	boots := p.journal.Boots()
	var next atomic.Uint64
	next.Store(boots[len(boots)-1].Size)
	var writing sync.WaitGroup
	for range 500 {
		writing.Go(func() {
			for next.Add(1) <= size {
				_, err := p.journal.Append(p.t.Context(), &audit.Record{Kind: audit.KindAdmin, Admin: &audit.AdminRecord{Event: "x"}}, policy.Synced)
				if err != nil {
					p.t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
}

// cosign has a region counter-sign the first size records of the running boot.
func (p *plot) cosign(region string, size uint64) {
	p.t.Helper()
	b, err := p.journal.ReadBatch(p.journal.Boot(), size, 1, 0)
	p.must(err)
	p.desks[region].sign(p.t, b.Checkpoint)
	until(p.t, "the receipt", func() bool {
		for _, st := range p.shipper.Status() {
			if st.Region == region {
				return st.Boots[p.journal.Boot()].Cosigned >= size
			}
		}
		return false
	})
}

// trimmed reports whether the running boot was trimmed through that record, and
// not further: Trim gives up whole segments, which hold fewer than 10,000.
func (p *plot) trimmed(through uint64) bool {
	got := p.through()
	return got <= through && through-got < 10_000
}

func (p *plot) through() uint64 {
	boots := p.journal.Boots()
	return boots[len(boots)-1].TrimmedThrough
}

// A narrow journal has the room that the test says.
type narrow struct {
	*journal.Journal
	level journal.SpaceLevel
}

func (n narrow) Space() journal.Space { return journal.Space{Level: n.level} }

const window = audit.WindowRecords

// Nothing goes that no region has counter-signed; what two have goes when it is
// old, or when room runs out; what one has goes only when room runs out, the
// release permits it, and a record says so first.
func TestTrimRule(t *testing.T) {
	p := newPlot(t)
	p.ship()
	p.fill(3*window + 1000)
	now := time.Now()
	var said []*audit.AdminRecord
	var recordErr error
	permits := false
	trimmer := func(level journal.SpaceLevel, retention time.Duration) *ship.Trimmer {
		tr, err := ship.NewTrimmer(ship.TrimConfig{
			Journal: narrow{p.journal, level}, Shipper: p.shipper, Retention: retention, Now: func() time.Time { return now },
			OneReceipt: func() bool { return permits },
			Record: func(r *audit.AdminRecord) error {
				if recordErr == nil {
					said = append(said, r)
				}
				return recordErr
			},
		})
		p.must(err)
		return tr
	}
	roomy, tight := trimmer(journal.SpaceEnough, time.Hour), trimmer(journal.SpaceLow, 1000*time.Hour)
	full := trimmer(journal.SpaceFull, 1000*time.Hour)
	want := func(what string, through uint64, records int, rounds ...*ship.Trimmer) {
		t.Helper()
		for _, tr := range rounds {
			if err := tr.Round(); (err != nil) != (recordErr != nil) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if !p.trimmed(through) || len(said) != records {
			t.Fatalf("%s: trimmed through %d, not %d; said %+v", what, p.through(), through, said)
		}
	}
	permits = true
	want("no receipts", 0, 0, roomy, tight, full)
	p.cosign("ra", 3*window+1000)
	permits = false
	want("one receipt, not permitted", 0, 0, roomy, tight, full)
	permits = true
	want("one receipt, permitted, and room", 0, 0, roomy)
	p.cosign("rb", window+1000)
	want("two receipts, young", 0, 0, roomy)
	now = now.Add(2 * time.Hour)
	want("two receipts, old", window, 0, roomy)
	permits = false
	p.cosign("rb", 2*window+500)
	want("two receipts, young for this one, no room", 2*window, 0, tight)
	permits, recordErr = true, errors.New("the disk is full")
	want("one receipt, permitted, no record", 2*window, 0, tight)
	recordErr = nil
	want("one receipt, permitted, said", 3*window, 1, tight)
	d := said[0].Detail
	if said[0].Event != ship.EventOneReceipt || d["from"] != int64(2*window+501) || d["through"] != int64(3*window) || d["region"] != "ra" || said[0].Count != window-500 {
		t.Errorf("%+v", said[0])
	}
	want("said once", 3*window, 1, tight, full)
}

// A region that is retired counts no more: what the others have counter-signed is
// enough, and what it alone has is nothing.
func TestTrimWithARetiredRegion(t *testing.T) {
	p := newPlot(t)
	p.ship()
	p.fill(2*window + 10)
	tr, err := ship.NewTrimmer(ship.TrimConfig{
		Journal: narrow{p.journal, journal.SpaceLow}, Shipper: p.shipper,
		Record: func(r *audit.AdminRecord) error { t.Errorf("%+v", r); return nil },
	})
	p.must(err)
	p.cosign("ra", 2*window+10)
	p.cosign("rb", window)
	p.shipper.Retire([]string{"ra"})
	p.must(tr.Round())
	if !p.trimmed(window) {
		t.Fatalf("trimmed through %d on the word of a retired region", p.through())
	}
	p.shipper.Retire([]string{"rb"})
	p.must(tr.Round())
	if !p.trimmed(2 * window) {
		t.Fatalf("trimmed through %d although the retired region does not count", p.through())
	}
	p.shipper.Retire([]string{"ra", "rb"})
	p.fill(3*window + 10)
	p.cosign("ra", 3*window+10)
	p.cosign("rb", 3*window+10)
	p.must(tr.Round())
	if !p.trimmed(2 * window) {
		t.Fatalf("trimmed through %d without any region", p.through())
	}
}

// A boot of which a region knows more than the journal is evidence, and stays.
func TestEvidenceIsNotTrimmed(t *testing.T) {
	p := newPlot(t)
	p.fill(window + 10)
	p.config.Journal = shortened{p.journal, window}
	b, err := p.journal.ReadBatch(p.journal.Boot(), window+1, 1, 0)
	p.must(err)
	p.desks["ra"].frames = append(p.desks["ra"].frames, b)
	p.shipper, err = ship.New(p.config)
	p.must(err)
	background(t, func(ctx context.Context) { p.shipper.Run(ctx) })
	until(t, "the evidence", func() bool { return p.shipper.Status()[0].Boots[p.journal.Boot()].Stopped })
	p.cosign("ra", window+1)
	p.cosign("rb", window)
	tr, err := ship.NewTrimmer(ship.TrimConfig{Journal: narrow{p.journal, journal.SpaceFull}, Shipper: p.shipper,
		OneReceipt: func() bool { return true }, Record: func(*audit.AdminRecord) error { return nil }})
	p.must(err)
	p.must(tr.Round())
	if got := p.through(); got != 0 {
		t.Fatalf("trimmed through %d", got)
	}
}

// A region that comes back after what it lacks was trimmed gets what there is.
func TestShippingGoesOnBehindWhatWasTrimmed(t *testing.T) {
	p := newPlot(t)
	p.fill(window + 10)
	p.must(p.journal.Trim(p.journal.Boot(), window))
	p.ship()
	until(t, "what is left", func() bool { return p.shipper.Status()[0].Boots[p.journal.Boot()].Shipped == window+10 })
	d := p.desks["ra"]
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.frames) == 0 || d.frames[0].First != p.through()+1 || p.through() == 0 || d.frames[len(d.frames)-1].Last() != window+10 {
		t.Fatalf("%d frames, the first from %d", len(d.frames), d.frames[0].First)
	}
}

func TestNewTrimmerRefusesHalfAConfig(t *testing.T) {
	p := newPlot(t)
	p.ship()
	whole := ship.TrimConfig{Journal: p.journal, Shipper: p.shipper, Record: func(*audit.AdminRecord) error { return nil }}
	if _, err := ship.NewTrimmer(whole); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*ship.TrimConfig){
		"no journal":         func(c *ship.TrimConfig) { c.Journal = nil },
		"no shipper":         func(c *ship.TrimConfig) { c.Shipper = nil },
		"no records":         func(c *ship.TrimConfig) { c.Record = nil },
		"negative receipts":  func(c *ship.TrimConfig) { c.MinReceipts = -1 },
		"negative retention": func(c *ship.TrimConfig) { c.Retention = -1 },
	} {
		c := whole
		spoil(&c)
		if _, err := ship.NewTrimmer(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
