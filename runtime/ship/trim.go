package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/sparing"
)

// A Trimmable is a journal that gives up records; *journal.Journal is one.
type Trimmable interface {
	Boots() []journal.Boot
	Segments(boot string) ([]journal.Segment, error)
	Space() journal.Space
	Trim(boot string, through uint64) error
}

// TrimConfig says what a node may give up, and when.
type TrimConfig struct {
	Journal Trimmable
	// Shipper knows the receipts.
	Shipper *Shipper
	// Retention is how long records stay although they have their receipts; 0
	// means one hour. It gives way when room runs out.
	Retention time.Duration
	// MinReceipts is how many regions must have counter-signed; 0 means 2. Where
	// fewer regions count it is those, and never less than one.
	MinReceipts int
	// OneReceipt says whether the release in force permits that one receipt
	// suffices when room runs out; nil means that it does not.
	OneReceipt func() bool
	// Record writes an administrative record; nil promises that it is on disk.
	Record func(*audit.AdminRecord) error
	// Step is told of each step: the seam for processes that are killed.
	Step func(string)
	// Now is the clock; only differences of it count. nil means time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// A Trimmer gives up what the regions have. Nothing that no region has
// counter-signed is ever given up, whatever the room.
type Trimmer struct {
	cfg TrimConfig
	log sparing.Log
	// seen is how far each boot was at earlier times, the oldest first.
	seen []sighting
	// told is, for each boot, through which record an administrative record
	// announced that one receipt suffices, and when.
	told map[string]announced
}

type sighting struct {
	at    time.Time
	sizes map[string]uint64
}

type announced struct {
	through uint64
	at      time.Time
}

const (
	trimInterval       = time.Second
	defaultRetention   = time.Hour
	defaultMinReceipts = 2
	// maxSightings bounds what is remembered for the retention, which is so kept to
	// a sixtieth of itself.
	maxSightings = 60
	// announceEvery is how often giving up on one receipt is a record, for each boot.
	announceEvery = 10 * time.Second
)

// EventOneReceipt is the event of the administrative record that precedes giving
// up records which one region alone has counter-signed.
const EventOneReceipt = "trim_on_one_receipt"

// NewTrimmer returns a trimmer that does nothing until Run.
func NewTrimmer(c TrimConfig) (*Trimmer, error) {
	if c.Journal == nil || c.Shipper == nil || c.Record == nil || c.MinReceipts < 0 || c.Retention < 0 {
		return nil, fmt.Errorf("trim: needs a journal, a shipper and a place for records; %d receipts, %v", c.MinReceipts, c.Retention)
	}
	if c.Retention == 0 {
		c.Retention = defaultRetention
	}
	if c.MinReceipts == 0 {
		c.MinReceipts = defaultMinReceipts
	}
	if c.OneReceipt == nil {
		c.OneReceipt = func() bool { return false }
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Trimmer{cfg: c, told: map[string]announced{}}, nil
}

// Run trims once a second until ctx ends, and returns its error.
func (t *Trimmer) Run(ctx context.Context) error {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		if err := t.Round(); err != nil {
			t.log.Warn(t.cfg.Log, "journal not trimmed", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Round trims once: what has its receipts and its age; while room runs out, what
// has its receipts, the oldest first; and then, if the release permits, what has
// one.
func (t *Trimmer) Round() error {
	now := t.cfg.Now()
	boots := slices.DeleteFunc(t.cfg.Journal.Boots(), func(b journal.Boot) bool { return b.TrimmedThrough >= b.Size })
	t.see(boots, now)
	var errs []error
	for _, b := range boots {
		errs = append(errs, t.trim(b, min(t.receipted(b, t.cfg.MinReceipts), t.aged(b.ID, now))))
	}
	for _, b := range boots {
		if !t.pressed() {
			return errors.Join(errs...)
		}
		errs = append(errs, t.trim(b, t.receipted(b, t.cfg.MinReceipts)))
	}
	if !t.cfg.OneReceipt() {
		return errors.Join(errs...)
	}
	for _, b := range boots {
		if !t.pressed() {
			break
		}
		errs = append(errs, t.trimOnOne(b, now))
	}
	return errors.Join(errs...)
}

// pressed reports whether room runs out: less than a fifth of the quota is left,
// or little of the disk.
func (t *Trimmer) pressed() bool { return t.cfg.Journal.Space().Level != journal.SpaceEnough }

// receipted is how much of a boot so many regions have counter-signed; 0 for a
// boot of which a region knows more than the journal: that is evidence.
func (t *Trimmer) receipted(b journal.Boot, receipts int) uint64 {
	return min(b.Size, t.cfg.Shipper.receipted(b.ID, receipts))
}

// trim gives up what it may of a boot.
func (t *Trimmer) trim(b journal.Boot, through uint64) error {
	through, err := t.gain(b, through)
	if err != nil || through == 0 {
		return err
	}
	t.cfg.Step("trim")
	if err := t.cfg.Journal.Trim(b.ID, through); err != nil {
		return err
	}
	t.cfg.Step("trimmed")
	return nil
}

// trimOnOne gives up what one region alone has counter-signed, once an
// administrative record says so.
func (t *Trimmer) trimOnOne(b journal.Boot, now time.Time) error {
	through, err := t.gain(b, t.receipted(b, 1))
	if err != nil || through == 0 {
		return err
	}
	told := t.told[b.ID]
	if through > told.through {
		if !told.at.IsZero() && now.Sub(told.at) < announceEvery {
			return t.trim(b, told.through)
		}
		from := max(t.receipted(b, t.cfg.MinReceipts), b.TrimmedThrough) + 1
		by := t.cfg.Shipper.signers(b.ID, through)
		err := t.cfg.Record(&audit.AdminRecord{
			Event: EventOneReceipt, Count: through + 1 - from,
			Text:   fmt.Sprintf("the journal runs out of room: records %d to %d of boot %s are kept by %s only", from, through, b.ID, strings.Join(by, ", ")),
			Detail: map[string]any{"boot": b.ID, "from": int64(from), "through": int64(through), "region": strings.Join(by, ",")},
		})
		if err != nil {
			return fmt.Errorf("nothing is given up on one receipt without its record: %w", err)
		}
		t.told[b.ID] = announced{through, now}
		t.cfg.Step("trim announced")
	}
	return t.trim(b, through)
}

// gain is how far Trim would give up records when it is asked for through, 0 when
// no room comes of it: whole segments go, and whole windows of a boot of which
// something stays.
func (t *Trimmer) gain(b journal.Boot, through uint64) (uint64, error) {
	if through <= b.TrimmedThrough {
		return 0, nil
	}
	if through < b.Size || !b.Closed {
		through -= through % audit.WindowRecords
	}
	segments, err := t.cfg.Journal.Segments(b.ID)
	if err != nil {
		return 0, err
	}
	for _, s := range segments {
		if s.Last > b.TrimmedThrough && s.Last <= through {
			return through, nil
		}
	}
	return 0, nil
}

// see remembers how far the boots are.
func (t *Trimmer) see(boots []journal.Boot, now time.Time) {
	if n := len(t.seen); n > 0 && now.Sub(t.seen[n-1].at) < t.cfg.Retention/maxSightings {
		return
	}
	sizes := make(map[string]uint64, len(boots))
	for _, b := range boots {
		sizes[b.ID] = b.Size
	}
	t.seen = append(t.seen, sighting{now, sizes})
	for len(t.seen) > 1 && now.Sub(t.seen[1].at) >= t.cfg.Retention {
		t.seen = t.seen[1:]
	}
	for id := range t.told {
		if _, there := sizes[id]; !there {
			delete(t.told, id)
		}
	}
}

// aged is how much of a boot was there already a retention ago, by the node's
// monotonic clock. After a restart it begins anew, so that records stay longer,
// never shorter.
func (t *Trimmer) aged(boot string, now time.Time) uint64 {
	if len(t.seen) == 0 || now.Sub(t.seen[0].at) < t.cfg.Retention {
		return 0
	}
	return t.seen[0].sizes[boot]
}
