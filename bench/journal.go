package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// journal measures the journal alone: records acknowledged as synced beside raw
// fsyncs of the same disk, and what a large journal costs to open, to scrub and
// to trim.
func (b *bench) journal(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := b.appends(ctx, dir); err != nil {
		return err
	}
	return b.large(ctx, dir)
}

func journalConfig(dir string) (journal.Config, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return journal.Config{}, err
	}
	key, _, err := journal.LoadOrCreateKey(filepath.Join(dir, "log.key"), audit.NodeKeyName("bench", "n1"))
	return journal.Config{Dir: filepath.Join(dir, "journal"), Tenant: "bench", Node: "n1", Key: key, ScrubBytes: -1}, err
}

// toolCall is the record of a small tool call.
func toolCall() *audit.Record {
	return &audit.Record{Kind: audit.KindDecision, Time: 1_795_000_000_000_000_000, Decision: &audit.DecisionRecord{
		Point: "tool.pre_call", RequestID: "0198c5c2-7a10-7cc1-9d6e-3b7a3c1f0d11", Subject: audit.Entity{Type: "user", ID: "alice"},
		Action: "call", Resource: audit.Entity{Type: "tool", ID: "payments.transfer"},
		Request: audit.NewPart(nil, []byte(`{"subject":{"type":"user","id":"alice"},"action":{"name":"call"},"resource":{"type":"tool","id":"payments.transfer"},"context":{"amount":125000,"currency":"EUR"}}`)),
		Verdict: policy.Deny, Reasons: []audit.Reason{{Code: "amount_over_limit", Text: "amount over the limit of the role"}},
		Activation: 2, Epoch: 3, Durability: policy.Synced, Runs: []audit.Run{{Fuel: 12_345}}, Latency: 42_000,
	}}
}

// appends prints records a second by the number of callers.
func (b *bench) appends(ctx context.Context, dir string) error {
	callers := []int{1, 16, 64, 256}
	rates := map[int]sample{} // time for each record
	var raw sample
	for range b.rounds {
		s, err := preallocatedFsync(dir, 300)
		if err != nil {
			return err
		}
		raw = append(raw, s.mean())
		for _, n := range callers {
			each, err := appendFor(ctx, filepath.Join(dir, "appends"), n, b.length/4)
			if err != nil {
				return err
			}
			rates[n] = append(rates[n], each)
		}
	}
	fsyncs := float64(time.Second) / float64(raw.q(0.5))
	b.line("\nJournal, records synced before they are acknowledged%12s %12s", "records/s", "per fsync")
	b.line("  %-48s %12.0f %12.2f", "raw: 512 bytes and an fdatasync, reserved space", fsyncs, 1.0)
	for _, n := range callers {
		perSecond := float64(time.Second) / float64(rates[n].q(0.5))
		b.line("  %-48s %12.0f %12.2f", fmt.Sprintf("%d callers", n), perSecond, perSecond/fsyncs)
	}
	return nil
}

func (s sample) mean() time.Duration {
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	return sum / time.Duration(len(s))
}

func preallocatedFsync(dir string, n int) (sample, error) {
	f, err := journal.OS().OpenFile(filepath.Join(dir, "raw"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Preallocate(16 << 20); err != nil {
		return nil, err
	}
	block, off := make([]byte, 512), int64(0)
	return timed(n, func() error {
		if _, err := f.WriteAt(block, off); err != nil {
			return err
		}
		off += 512
		return f.Sync()
	})
}

// appendFor has n callers append for a while, and returns the time for each record.
func appendFor(ctx context.Context, dir string, n int, length time.Duration) (time.Duration, error) {
	defer os.RemoveAll(dir)
	cfg, err := journalConfig(dir)
	if err != nil {
		return 0, err
	}
	j, err := journal.Open(cfg)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	var failed atomic.Pointer[error]
	r, began := toolCall(), time.Now()
	for range n {
		wg.Go(func() {
			for time.Since(began) < length {
				if _, err := j.Append(ctx, r, policy.Synced); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return took / time.Duration(done.Load()), j.Close()
}

// unsynced leaves out the fsyncs, to make a large journal soon.
type unsynced struct{ journal.FS }

type unsyncedFile struct{ journal.File }

func (u unsynced) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}

func (unsyncedFile) Sync() error { return nil }

// large prints what a journal of b.records records in one boot costs.
func (b *bench) large(ctx context.Context, dir string) error {
	cfg, err := journalConfig(filepath.Join(dir, "large"))
	if err != nil {
		return err
	}
	boot, took, err := fill(ctx, cfg, b.records)
	if err != nil {
		return err
	}
	b.line("\nJournal of %d records in one boot (made in %.0f s without fsyncs)", b.records, took.Seconds())
	var opens sample
	for range min(b.rounds, 5) {
		if err := dropCache(cfg.Dir); err != nil {
			return err
		}
		began := time.Now()
		j, err := journal.Open(cfg)
		if err != nil {
			return err
		}
		opens = append(opens, time.Since(began))
		if err := errors.Join(j.Close(), os.RemoveAll(filepath.Join(cfg.Dir, j.Boot()))); err != nil { // so that the large one is the last again
			return err
		}
	}
	b.line("  cold open, from the last checkpoint%30.3f s (slowest %.3f s)", opens.q(0.5).Seconds(), opens.q(1).Seconds())
	whole := cfg
	whole.ScanBytes = math.MaxInt64
	if err := dropCache(cfg.Dir); err != nil {
		return err
	}
	began := time.Now()
	j, err := journal.Open(whole)
	if err != nil {
		return err
	}
	defer j.Close()
	b.line("  cold open, every record read%37.3f s", time.Since(began).Seconds())
	return b.scrubAndTrim(ctx, j, boot)
}

// fill makes one boot of so many records.
func fill(ctx context.Context, cfg journal.Config, records int) (boot string, took time.Duration, err error) {
	cfg.FS = unsynced{journal.OS()}
	cfg.CheckpointRecords = 1 << 40
	j, err := journal.Open(cfg)
	if err != nil {
		return "", 0, err
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Pointer[error]
	r, began := toolCall(), time.Now()
	for range 256 {
		wg.Go(func() {
			for next.Add(1) < int64(records) { // the boot's own is one
				if _, err := j.Append(ctx, r, policy.Written); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return "", 0, *err
	}
	return j.Boot(), time.Since(began), j.Close()
}

func (b *bench) scrubAndTrim(ctx context.Context, j *journal.Journal, boot string) error {
	used, err := j.DiskBytes()
	if err != nil {
		return err
	}
	began := time.Now()
	found, err := j.Scrub(ctx, 0)
	if err != nil || len(found) > 0 {
		return fmt.Errorf("scrub: %w, %v", err, found)
	}
	took := time.Since(began)
	b.line("  scrub as fast as it can%42.0f MB/s, %.0f records/s; %.0f bytes each on disk", float64(used)/1e6/took.Seconds(), float64(b.records)/took.Seconds(), float64(used)/float64(b.records))
	began = time.Now()
	if err := j.Trim(boot, uint64(b.records)); err != nil {
		return err
	}
	left, err := j.DiskBytes()
	if err != nil {
		return err
	}
	b.line("  trim of it all%51.3f s, %.0f MB given back", time.Since(began).Seconds(), float64(used-left)/1e6)
	return nil
}
