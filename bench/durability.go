package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var classes = []policy.Durability{policy.Written, policy.Synced, policy.Region, policy.Regions}

// durability measures decisions over HTTP for each durability class, beside one
// raw fsync of the same disk. Load, node, two regions and their ledgers share one
// process.
func (b *bench) durability(ctx context.Context) error {
	assembly.ReserveForDisk()
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fleet, err := twoRegions(ctx, dir)
	if err != nil {
		return err
	}
	defer fleet.Close()
	body := []byte(`{"document":` + rbacInput + `}`)
	b.line("\nDurability over HTTP, open loop, two regions in this process%9s %9s %9s %9s", "p50 us", "p99 us", "p99.9 us", "not met")
	for _, rate := range []int{500, 2000, 4000} {
		rows := make([]series, len(classes))
		short := make([]uint64, len(classes))
		var fsyncs series
		for range b.rounds {
			for i, class := range classes {
				s, n, err := openLoopOf(ctx, fleet.URLs()[0], class, body, rate, b.length)
				if err != nil {
					return err
				}
				rows[i], short[i] = append(rows[i], s), short[i]+n
			}
			s, err := rawFsync(dir, 200)
			if err != nil {
				return err
			}
			fsyncs = append(fsyncs, s)
		}
		for i, class := range classes {
			b.line("  %4d/s  %-45s %7.0f %9.0f %9.0f %9d", rate, class, us(rows[i].median(0.5)), us(rows[i].median(0.99)), us(rows[i].median(0.999)), short[i])
		}
		b.line("  %4d/s  %-45s %7.0f %9.0f %9.0f", rate, "one raw fsync, nothing else running", us(fsyncs.median(0.5)), us(fsyncs.median(0.99)), us(fsyncs.median(0.999)))
	}
	return nil
}

// openLoopOf is openLoop at the point of a class; it counts the answers that did
// not meet it.
func openLoopOf(ctx context.Context, url string, class policy.Durability, body []byte, rate int, length time.Duration) (sample, uint64, error) {
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	n := int(length.Seconds() * float64(rate))
	took := make(sample, n)
	var short atomic.Uint64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		running.Go(func() {
			a, err := c.Decide(ctx, pointOf(class), body)
			if err != nil {
				failed.Store(&err)
			} else if a.Durability < class {
				short.Add(1)
			}
			took[i] = time.Since(due)
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return nil, 0, *err
	}
	return took, short.Load(), nil
}

func pointOf(class policy.Durability) string { return "custom." + class.String() }

// twoRegions starts a node with two regions that has a point for each class.
func twoRegions(ctx context.Context, dir string) (*assembly.Fleet, error) {
	fleet, err := assembly.StartFleet(ctx, fleetOf(dir))
	if err != nil {
		return nil, err
	}
	points, files, err := rbacRelease(ctx)
	if err == nil {
		var all []bundle.Point
		for _, class := range classes {
			p := points[0]
			p.Name, p.Durability = pointOf(class), class
			all = append(all, p)
		}
		var p assembly.Published
		if p, err = fleet.Publish(ctx, all, files); err == nil {
			_, err = inForce(ctx, fleet.URLs(), p.Epoch)
		}
	}
	if err != nil {
		return nil, errors.Join(err, fleet.Close())
	}
	return fleet, nil
}

func fleetOf(dir string) assembly.FleetConfig {
	return assembly.FleetConfig{Dir: dir, Tenant: "bench", Regions: 2, Edges: 1, Log: slog.New(slog.DiscardHandler)}
}

// backlogRecords are ten minutes of 2,000 decisions a second.
const backlogRecords = 1_200_000

// drain measures how fast the ledgers of two regions get what a node wrote while
// it was cut off, and how long a new record takes into a region meanwhile.
func (b *bench) drain(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fleet, err := twoRegions(ctx, dir)
	if err != nil {
		return err
	}
	layout := fleet.Layout()
	if err := fleet.Close(); err != nil {
		return err
	}
	began := time.Now()
	if err := backlog(ctx, layout.Node(assembly.NodeName(1))); err != nil {
		return err
	}
	b.line("\nBacklog of %d records, written in %v", backlogRecords, time.Since(began).Round(time.Millisecond))
	if fleet, err = assembly.StartFleet(ctx, fleetOf(dir)); err != nil {
		return err
	}
	defer fleet.Close()
	began = time.Now()
	draining, done := context.WithCancel(ctx)
	fresh := make(chan sample)
	go func() { fresh <- freshRecords(draining, fleet.URLs()[0]) }()
	err = fleet.WaitCosigned(ctx)
	took := time.Since(began)
	done()
	took2 := <-fresh
	if err != nil {
		return err
	}
	b.line("  counter-signed by both regions in %v: %.0f records/s", took.Round(time.Millisecond), backlogRecords/took.Seconds())
	b.line("  %d new decisions of class region meanwhile: p50 %.1f ms, max %.1f ms", len(took2), us(took2.q(0.5))/1000, us(took2.q(1))/1000)
	return nil
}

// freshRecords asks at the point of class region until ctx ends.
func freshRecords(ctx context.Context, url string) (took sample) {
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		return nil
	}
	defer c.Close()
	for ctx.Err() == nil {
		began := time.Now()
		a, err := c.Decide(ctx, pointOf(policy.Region), []byte(`{"document":`+rbacInput+`}`))
		if err == nil && a.Durability == policy.Region {
			took = append(took, time.Since(began))
		} else if err == nil && a.Epoch > 0 {
			took = append(took, time.Hour) // not met
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return took
}

// backlog writes the records of a boot into the journal of a node that is stopped.
func backlog(ctx context.Context, dir string) error {
	key, _, err := journal.LoadOrCreateKey(edge.KeyFile(dir), audit.NodeKeyName("bench", assembly.NodeName(1)))
	if err != nil {
		return err
	}
	j, err := journal.Open(journal.Config{Dir: edge.JournalDir(dir), Tenant: "bench", Node: assembly.NodeName(1), Key: key})
	if err != nil {
		return err
	}
	var writing sync.WaitGroup
	var failed atomic.Pointer[error]
	const writers = 256
	for k := range writers {
		writing.Go(func() {
			for i := k; i < backlogRecords; i += writers {
				r := &audit.Record{Kind: audit.KindDecision, Time: time.Now().UnixNano(), Decision: &audit.DecisionRecord{
					Point: policy.PointCustom, RequestID: fmt.Sprint("request-", i), Subject: audit.Entity{Type: "user", ID: fmt.Sprint("user-", i%997)}, Action: "read",
					Request: audit.NewPart(nil, fmt.Appendf(nil, `{"document":%s,"context":{"request":"%x"}}`, rbacInput, wire.Sum([]byte(fmt.Sprint(i))))),
					Verdict: policy.Allow, Epoch: 1, Durability: policy.Synced, Runs: []audit.Run{{Verdict: policy.Allow, Fuel: 4711}}, Latency: int64(i % 90_000),
				}}
				if _, err := j.Append(ctx, r, policy.Synced); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	writing.Wait()
	if err := failed.Load(); err != nil {
		return errors.Join(*err, j.Close())
	}
	size, err := folderBytes(edge.JournalDir(dir))
	if err != nil {
		return errors.Join(err, j.Close())
	}
	fmt.Fprintf(os.Stderr, "journal: %.1f bytes a record\n", float64(size)/backlogRecords)
	return j.Close()
}

func folderBytes(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
