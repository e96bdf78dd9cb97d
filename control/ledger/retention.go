package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

const (
	sweepsDir = "sweeps"
	sweepFile = ".sweep"

	day = 24 * time.Hour
	// retainAgain is how often the archive is looked through for what is old.
	retainAgain = day
	// clockSlack is how far the wall clock may leave the monotonic one: a clock
	// that jumps must not make records old.
	clockSlack = time.Hour
)

// retain deletes what is old, once a day, until ctx ends. The age of a record
// counts from its arrival here, by this server's clock, never from the node's.
func (l *Ledger) retain(ctx context.Context) {
	began := time.Now()
	for pause(ctx, retainAgain) {
		now := time.Now()
		if d := now.Round(0).Sub(began.Round(0)) - now.Sub(began); d.Abs() > clockSlack {
			l.cfg.Log.Error("the clock has jumped; nothing is deleted because it is old until the server starts again", "by", d)
			continue
		}
		if err := l.Expire(ctx, now); err != nil && ctx.Err() == nil {
			l.cfg.Log.Error("old parts are not deleted", "err", err)
		}
	}
}

// Expire deletes the parts of archived batches of which every record is past its
// point's parts_days at a time, and that no hold keeps. First it signs and stores
// what it will delete; a crash in between is made up for at the next start. Whole
// records stay: records_days is not acted on.
func (l *Ledger) Expire(ctx context.Context, now time.Time) error {
	errs := []error{l.expireAgain(ctx)}
	var parts []audit.Records
	ranges := 0
	for _, key := range l.sortedKeys() {
		due, err := l.due(key, now)
		errs = append(errs, err)
		for len(due) > 0 && ctx.Err() == nil {
			n := min(len(due), audit.MaxSweepRanges-ranges)
			parts = append(parts, audit.Records{Node: key.node, Boot: key.boot, Ranges: due[:n]})
			due, ranges = due[n:], ranges+n
			if ranges == audit.MaxSweepRanges {
				errs = append(errs, l.expire(ctx, parts, now))
				parts, ranges = nil, 0
			}
		}
	}
	if len(parts) > 0 && ctx.Err() == nil {
		errs = append(errs, l.expire(ctx, parts, now))
	}
	return errors.Join(errs...)
}

// due are the records of the batches of a boot that are due.
func (l *Ledger) due(key bootKey, now time.Time) (out []audit.Range, err error) {
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil {
		return nil, err
	}
	at, removed, holds := audit.Place{Node: key.node, Boot: key.boot}, l.documents.erased(), l.documents.holds()
	points := map[uint64]map[string]*audit.Retention{} // by the seq of the activation
	for _, s := range spans {
		info, err := os.Stat(filepath.Join(l.archive.boot(key.node, key.boot), s.file()))
		if err != nil {
			continue // damage, which the scrub finds
		}
		age := now.Sub(info.ModTime())
		if age < day {
			break // what comes later arrived later
		}
		b, err := l.archive.read(key.node, key.boot, s)
		if err != nil {
			continue
		}
		if pastParts(b, points, age, holds) && !removedAll(removed.Ranges(at), s) {
			out = append(out, audit.Range{From: s.first, To: s.last})
		}
	}
	return audit.Union(out), nil
}

// removedAll reports whether all of a batch's records are in ranges.
func removedAll(ranges []audit.Range, s span) bool {
	for _, r := range ranges {
		if r.From <= s.first && s.last <= r.To {
			return true
		}
	}
	return false
}

// pastParts reports whether every decision of a batch, of which there is one at
// least, is past its point's parts_days, and none is held. It notes activations.
func pastParts(b *audit.Batch, points map[uint64]map[string]*audit.Retention, age time.Duration, holds []audit.Hold) bool {
	decisions, past := 0, true
	for _, e := range b.Entries {
		r, err := e.Record(nil)
		if err != nil {
			return false
		}
		if r.Activation != nil {
			points[r.Seq] = map[string]*audit.Retention{}
			for _, p := range r.Activation.Points {
				points[r.Seq][p.Name] = p.Retention
			}
		}
		if r.Decision == nil {
			continue
		}
		decisions++
		keep := points[r.Decision.Activation][r.Decision.Point]
		if keep == nil || keep.PartsDays == 0 || age < time.Duration(keep.PartsDays)*day {
			past = false
		}
		if _, held := heldBy(holds, b.Node, r); held {
			past = false
		}
	}
	return past && decisions > 0
}

// expire signs what is to be deleted, stores that, and deletes it.
func (l *Ledger) expire(ctx context.Context, parts []audit.Records, now time.Time) error {
	s := &audit.Sweep{Tenant: l.cfg.Tenant, Region: l.cfg.Region, Serial: l.nextSweep(now), Time: now.UnixNano(), Parts: parts}
	msg, err := s.Sign(l.cfg.Key)
	if err != nil {
		return err
	}
	if err := makeDir(filepath.Join(l.cfg.Dir, sweepsDir)); err != nil {
		return err
	}
	if err := create(l.archive.sweep(s.Serial), msg); err != nil {
		return err
	}
	if err := syncDir(filepath.Join(l.cfg.Dir, sweepsDir)); err != nil {
		return err
	}
	l.cfg.Step("sweep")
	l.documents.sweep(s)
	l.cfg.Log.Info("old parts are deleted", "sweep", s.Serial, "boots", len(parts))
	return l.expireAgain(ctx)
}

// expireAgain deletes what signed sweeps name and what is still there.
func (l *Ledger) expireAgain(ctx context.Context) error {
	l.documents.deleting.Lock()
	defer l.documents.deleting.Unlock()
	var errs []error
	for _, s := range l.documents.unswept() {
		done := true
		errs = append(errs, l.dropDamaged(s.Parts))
		for _, r := range s.Parts {
			ok, err := l.eraseBoot(ctx, r, false)
			done = done && ok && err == nil && ctx.Err() == nil
			errs = append(errs, err)
		}
		if done {
			err := replace(l.archive.sweep(s.Serial)+doneFile, nil)
			errs = append(errs, err)
			l.documents.sweptAll(s, err)
		}
	}
	return errors.Join(errs...)
}

// sweep takes into account that the parts of records are deleted, or to be.
func (d *documents) sweep(s *audit.Sweep) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = append(d.swept, s.Parts...)
	d.sweeping = append(d.sweeping, s)
	d.sum()
}

func (d *documents) unswept() []*audit.Sweep {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sweeping)
}

// sweptAll notes that nothing is left of what a sweep names, if err is nil.
func (d *documents) sweptAll(s *audit.Sweep, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweeping = slices.DeleteFunc(d.sweeping, func(o *audit.Sweep) bool { return err == nil && o.Serial == s.Serial })
}

func (a archive) sweep(serial uint64) string {
	return filepath.Join(string(a), sweepsDir, fmt.Sprintf("%020d%s", serial, sweepFile))
}

// nextSweep is a serial that is not taken, and rises with time.
func (l *Ledger) nextSweep(now time.Time) uint64 {
	for serial := uint64(now.UnixNano()); ; serial++ {
		if _, err := os.Stat(l.archive.sweep(serial)); errors.Is(err, fs.ErrNotExist) {
			return serial
		}
	}
}

// openSweeps reads what was deleted before; what a crash kept from being deleted
// is, when Run begins.
func (l *Ledger) openSweeps() error {
	return l.archive.sweeps(func(path string, msg []byte) error {
		s, err := audit.PeekSweep(msg)
		if err != nil || s.Tenant != l.cfg.Tenant || s.Region != l.cfg.Region || !signedWith(msg, l.cfg.Key) {
			l.cfg.Log.Error("sweep is not believed", "file", path, "err", err)
			return nil
		}
		l.documents.sweep(s)
		if _, err := os.Stat(path + doneFile); err == nil {
			l.documents.sweptAll(s, nil)
		}
		return nil
	})
}

// signedWith reports whether a note has a signature that the key makes: the same
// text gives the same one.
func signedWith(msg []byte, key note.Signer) bool {
	i := strings.Index(string(msg), "\n\n")
	if i < 0 {
		return false
	}
	again, err := note.Sign(&note.Note{Text: string(msg[:i+1])}, key)
	return err == nil && string(again) == string(msg)
}

// sweeps calls take with each stored sweep, oldest first.
func (a archive) sweeps(take func(path string, msg []byte) error) error {
	dir := filepath.Join(string(a), sweepsDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), sweepFile) {
			continue
		}
		msg, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil {
			err = take(filepath.Join(dir, e.Name()), msg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a archive) exportSweeps(w *audit.ExportWriter) error {
	return a.sweeps(func(_ string, msg []byte) error { return w.Sweep(msg) })
}
