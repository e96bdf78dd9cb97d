package loader_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// guest returns a holdfast_v1 module that answers every request with output, or
// traps when there is none.
var guest = tinyguest.Says

// says is the package of a guest that always gives the verdict.
func says(t testing.TB, v policy.Verdict) *bundle.Package {
	t.Helper()
	out, err := wire.Marshal(map[string]any{"verdict": v.String()})
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: "says-" + v.String(), ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy},
		Module:   guest(out),
		Vectors: []bundle.Vector{{
			Name: "always", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: v},
		}},
	}
}

// world is everything around a loader: keys, an engine, a source and a clock.
type world struct {
	t                      testing.TB
	root, author, approver *bundle.PrivateKey
	trust                  *bundle.TrustRoot
	engine                 *engine.Engine
	folder                 string // of the source
	dir                    string // of the loader

	mu        sync.Mutex
	now       time.Time
	activated []uint64 // epochs
	refused   []error
	names     []wire.Digest // of what was refused
	broken    error         // what recording an activation returns
	recorded  chan uint64   // epochs, as they come into force
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, folder: t.TempDir(), dir: t.TempDir(), now: start, recorded: make(chan uint64, 1000)}
	key := func(role bundle.Role, person string, seed byte) *bundle.PrivateKey {
		k, err := bundle.NewPrivateKey(role, person, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	w.root, w.author, w.approver = key(bundle.RoleRoot, "rosa", 1), key(bundle.RoleAuthor, "ann", 2), key(bundle.RoleApprover, "bob", 3)
	w.trust = bundle.NewTrustRoot("acme", start.AddDate(1, 0, 0), w.root.Key, w.author.Key, w.approver.Key)
	var err error
	if w.engine, err = engine.New(context.Background(), engine.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.engine.Close(context.Background()) })
	for _, sub := range []string{"releases", "packages"} {
		if err := os.Mkdir(filepath.Join(w.folder, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) config() loader.Config {
	return loader.Config{
		Dir: w.dir, Root: w.trust, Engine: w.engine, Source: loader.FolderSource{Dir: w.folder},
		Activate: w.activate, Refused: w.refuse, Now: w.clock,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Retry: time.Millisecond,
	}
}

// open makes a loader; change may be nil.
func (w *world) open(change func(*loader.Config)) *loader.Loader {
	w.t.Helper()
	config := w.config()
	if change != nil {
		change(&config)
	}
	l, err := loader.New(context.Background(), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return l
}

// run follows the source's folder and runs the loader until the test ends.
func (w *world) run(l *loader.Loader) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var following sync.WaitGroup
	following.Go(func() {
		loader.Follow(ctx, loader.FolderSource{Dir: w.folder}, l.Deliver, time.Millisecond, slog.New(slog.DiscardHandler))
	})
	w.t.Cleanup(func() {
		cancel()
		following.Wait()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) activate(_ context.Context, set *decide.Set, s *bundle.SignedRelease) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if set.Epoch != s.Epoch || set.Release != s.Digest {
		return errors.New("set and release differ")
	}
	w.activated = append(w.activated, s.Epoch)
	w.recorded <- s.Epoch
	return nil
}

func (w *world) refuse(name wire.Digest, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused, w.names = append(w.refused, err), append(w.names, name)
}

func (w *world) refusals() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error(nil), w.refused...)
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// publish puts the package into the source's folder and returns its reference.
func (w *world) publish(p *bundle.Package) bundle.PackageRef {
	w.t.Helper()
	file, digest, err := p.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(filepath.Join(w.folder, "packages", digest.Hex()+".hfp"), file)
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		w.t.Fatal(err)
	}
	return bundle.PackageRef{Name: p.Name, Digest: digest, Size: uint64(len(raw))}
}

func (w *world) write(path string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) release(epoch uint64, refs ...bundle.PackageRef) *bundle.Release {
	return &bundle.Release{
		Tenant: "acme", Epoch: epoch, Fallback: bundle.FallbackPrevious, Created: start.Unix(),
		Points: []bundle.Point{{Name: policy.PointCustom, Durability: policy.Synced, OnFuel: policy.FailEscalate, Packages: refs}},
	}
}

// sign returns the release's envelope, signed by keys, or by author and approver.
func (w *world) sign(r *bundle.Release, keys ...*bundle.PrivateKey) []byte {
	w.t.Helper()
	if keys == nil {
		keys = []*bundle.PrivateKey{w.author, w.approver}
	}
	env, err := bundle.SignRelease(r, keys...)
	if err != nil {
		w.t.Fatal(err)
	}
	return env
}

// verdict publishes a package that always gives v and returns the release of it.
func (w *world) verdict(epoch uint64, v policy.Verdict) []byte {
	w.t.Helper()
	return w.sign(w.release(epoch, w.publish(says(w.t, v))))
}

func (w *world) offer(l *loader.Loader, env []byte) {
	w.t.Helper()
	if err := l.Offer(context.Background(), env); err != nil {
		w.t.Fatal(err)
	}
}

// expect fails unless epoch is in force and decides v.
func (w *world) expect(l *loader.Loader, epoch uint64, v policy.Verdict) {
	w.t.Helper()
	set := l.Set()
	if set == nil || set.Epoch != epoch || l.Status().Epoch != epoch || l.Status().Release != set.Release {
		w.t.Fatalf("want epoch %d, have %+v, %+v", epoch, set, l.Status())
	}
	out := set.Points[policy.PointCustom].Evaluate(request(w.t), start.UnixNano())
	if out.Decision.Verdict != v || out.Runs[0].Trap != "" {
		w.t.Fatalf("want %s, got %+v", v, out)
	}
}

func request(t testing.TB) *policy.Request {
	t.Helper()
	r, err := policy.ParseRequest(policy.PointCustom, []byte(`{"document":{"n":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
