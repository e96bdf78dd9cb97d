package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// overHTTP compares a decision over HTTP, with its record fsynced before the
// answer, with a bare echo of the same request, and both with one raw fsync of
// the same disk. The load is open-loop: latency counts from the moment at which
// a request was due, whether or not the one before it was answered.
func (b *bench) overHTTP(ctx context.Context) error {
	assembly.ReserveForDisk() // as holdfastd does; the echo has it too
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fleet, err := b.oneNode(ctx, dir)
	if err != nil {
		return err
	}
	defer fleet.Close()
	echo, err := newEcho()
	if err != nil {
		return err
	}
	defer echo.Close()
	body := []byte(`{"document":` + rbacInput + `}`)
	synced := []byte(`"verdict":"allow","reasons":[],"obligations":[],"epoch":1,"recorded":true,"durability":"synced"`)
	decide := fleet.URLs()[0] + "/v1/decide/custom"
	b.line("\nOver HTTP, open loop (RBAC, 100 bindings)%9s %9s %9s", "p50 us", "p99 us", "p99.9 us")
	for _, rate := range []int{500, 2000} {
		var decided, echoed, fsyncs series
		for range b.rounds {
			for _, turn := range []struct {
				url  string
				want []byte
				into *series
			}{{"http://" + echo.Addr().String(), body, &echoed}, {decide, synced, &decided}} {
				s, err := openLoop(ctx, turn.url, body, turn.want, rate, b.length)
				if err != nil {
					return err
				}
				*turn.into = append(*turn.into, s)
			}
			s, err := rawFsync(dir, 200)
			if err != nil {
				return err
			}
			fsyncs = append(fsyncs, s)
		}
		for _, row := range []struct {
			name string
			s    series
		}{{"bare net/http echo", echoed}, {"decision, record synced", decided}, {"one raw fsync, nothing else running", fsyncs}} {
			b.line("  %4d/s  %-35s %7.0f %9.0f %9.0f", rate, row.name, us(row.s.median(0.5)), us(row.s.median(0.99)), us(row.s.median(0.999)))
		}
		bound := echoed.median(0.99) + 3*fsyncs.median(0.99)
		b.line("  %4d/s  p99 %.0f us; echo's p99 + 3 fsync's p99 = %.0f us: ratio %.2f", rate, us(decided.median(0.99)), us(bound), float64(decided.median(0.99))/float64(bound))
	}
	return nil
}

// oneNode starts a node without regions that enforces the RBAC policy.
func (b *bench) oneNode(ctx context.Context, dir string) (*assembly.Fleet, error) {
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: dir, Tenant: "bench", Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	points, files, err := rbacRelease(ctx)
	if err == nil {
		var p assembly.Published
		if p, err = fleet.Publish(ctx, points, files); err == nil {
			_, err = inForce(ctx, fleet.URLs(), p.Epoch)
		}
	}
	if err != nil {
		fleet.Close()
		return nil, err
	}
	return fleet, nil
}

func rbacPoint(file []byte, name string) ([]bundle.Point, map[wire.Digest][]byte, error) {
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		return nil, nil, err
	}
	d := wire.Sum(content)
	return []bundle.Point{{Name: policy.PointCustom, Durability: policy.Synced,
			Packages: []bundle.PackageRef{{Name: name, Digest: d, Size: uint64(len(content))}}}},
		map[wire.Digest][]byte{d: file}, nil
}

// newEcho answers every POST with its body and does nothing else.
func newEcho() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, _ = w.Write(body)
		}
	}))
	return l, nil
}

// openLoop sends rate requests a second for the given time.
func openLoop(ctx context.Context, url string, body, want []byte, rate int, length time.Duration) (sample, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	n := int(length.Seconds() * float64(rate))
	took := make(sample, n)
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		running.Go(func() {
			if err := post(ctx, c, url, body, want); err != nil {
				failed.Store(&err)
			}
			took[i] = time.Since(due)
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return took, nil
}

// post wants a 200 with an answer that contains want.
func post(ctx context.Context, c *http.Client, url string, body, want []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(answer, want)) {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}

// rawFsync appends 4 KiB and syncs, n times.
func rawFsync(dir string, n int) (sample, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	return timed(n, func() error {
		if _, err := f.Write(block); err != nil {
			return err
		}
		return f.Sync()
	})
}
