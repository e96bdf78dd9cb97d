package loader_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/schema"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func TestOffer(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	if l.Set() != nil || l.Status().Epoch != 0 {
		t.Fatal("a new node has something in force")
	}
	env := w.verdict(1, policy.Allow)
	w.offer(l, env)
	w.expect(l, 1, policy.Allow)
	p := l.Set().Points[policy.PointCustom]
	if p.Durability != policy.Synced || p.OnFuel != policy.FailEscalate || p.Modules[0].Name != "says-allow" ||
		p.Modules[0].Wasm != wire.Sum(says(t, policy.Allow).Module) || !p.Modules[0].Params.IsZero() {
		t.Errorf("%+v", p)
	}
	w.offer(l, env) // again: nothing happens
	w.offer(l, w.verdict(2, policy.Throttle))
	w.expect(l, 2, policy.Throttle)
	w.offer(l, w.verdict(9, policy.Allow))
	w.expect(l, 9, policy.Allow)
	if want := []uint64{1, 2, 9}; !slices.Equal(w.activated, want) || len(w.refusals()) != 0 {
		t.Errorf("activated %v, refused %v", w.activated, w.refusals())
	}
}

// A release that demands more regions than the node ships to is refused; one that
// was in force before the node lost a region stays.
func TestRegionsThatAClassNeeds(t *testing.T) {
	w := newWorld(t)
	ref := w.publish(says(t, policy.Allow))
	demand := func(epoch uint64, d policy.Durability) []byte {
		r := w.release(epoch, ref)
		r.Points[0].Durability = d
		return w.sign(r)
	}
	l := w.open(func(c *loader.Config) { c.Regions = 1 })
	w.offer(l, demand(1, policy.Region))
	w.expect(l, 1, policy.Allow)
	if err := l.Offer(context.Background(), demand(2, policy.Regions)); !errors.Is(err, loader.ErrDurability) {
		t.Fatalf("two regions of one: %v", err)
	}
	w.expect(l, 1, policy.Allow)
	w.expect(w.open(func(c *loader.Config) { c.Regions = 0 }), 1, policy.Allow)
}

// Whatever is refused leaves the old release in force, in memory and on disk, and
// is told once.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	older := w.verdict(4, policy.Deny)
	w.offer(l, w.verdict(5, policy.Allow))
	deny := w.publish(says(t, policy.Deny))
	refused := func(change func(*bundle.Release)) []byte {
		r := w.release(6, deny)
		change(r)
		return w.sign(r)
	}
	pkg := func(change func(*bundle.Package)) []byte {
		p := says(t, policy.Deny)
		change(p)
		return w.sign(w.release(6, w.publish(p)))
	}
	broken := func(change func(*bundle.PackageRef)) []byte {
		p := says(t, policy.Deny)
		p.ParamsSchema = []byte(`{"properties": {"n": {"type": "integer"}}}`)
		ref := w.publish(p)
		change(&ref)
		return w.sign(w.release(6, ref))
	}
	swapped := w.publish(says(t, policy.RequireApproval))
	other, _, err := says(t, policy.Transform).Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.write(filepath.Join(w.folder, "packages", swapped.Digest.Hex()+".hfp"), other)
	var refusal *wasm.Refusal
	var equivocation *bundle.EquivocationError
	for name, c := range map[string]struct {
		env  []byte
		want any // an error, or a pointer for errors.As
	}{
		"nonsense":            {[]byte("release"), bundle.ErrEnvelope},
		"author twice":        {w.sign(w.release(6, deny), w.author, w.author), bundle.ErrThreshold},
		"author only":         {w.sign(w.release(6, deny), w.author), bundle.ErrThreshold},
		"approver only":       {w.sign(w.release(6, deny), w.approver), bundle.ErrThreshold},
		"root and author":     {w.sign(w.release(6, deny), w.root, w.author), bundle.ErrThreshold},
		"payload altered":     {bytes.Replace(w.sign(w.release(6, deny)), []byte("AAAA"), []byte("AAAB"), 1), bundle.ErrSignature},
		"wrong tenant":        {refused(func(r *bundle.Release) { r.Tenant = "umbrella" }), bundle.ErrTenant},
		"older":               {older, bundle.ErrOlder},
		"same epoch":          {refused(func(r *bundle.Release) { r.Epoch = 5 }), &equivocation},
		"far ahead":           {refused(func(r *bundle.Release) { r.Epoch = 1e9 }), bundle.ErrEpochJump},
		"expired":             {refused(func(r *bundle.Release) { r.Created, r.Expires = 0, start.Unix() }), bundle.ErrExpired},
		"not yet valid":       {refused(func(r *bundle.Release) { r.NotBefore = start.Unix() + 1 }), bundle.ErrNotYetValid},
		"region":              {refused(func(r *bundle.Release) { r.Points[0].Durability = policy.Region }), loader.ErrDurability},
		"regions":             {refused(func(r *bundle.Release) { r.Points[0].Durability = policy.Regions }), loader.ErrDurability},
		"package missing":     {refused(func(r *bundle.Release) { r.Points[0].Packages[0].Digest[0]++ }), fs.ErrNotExist},
		"package too large":   {refused(func(r *bundle.Release) { r.Points[0].Packages[0].Size-- }), wire.ErrTooLarge},
		"digest mismatch":     {w.sign(w.release(6, swapped)), loader.ErrDigest},
		"not Wasm":            {pkg(func(p *bundle.Package) { p.Module = []byte("wasm") }), &refusal},
		"module cut":          {pkg(func(p *bundle.Package) { p.Module = p.Module[:len(p.Module)-4] }), &refusal},
		"other contract":      {pkg(func(p *bundle.Package) { p.ABI = string(abi.OPA1) }), &refusal},
		"failing vector":      {pkg(func(p *bundle.Package) { p.Vectors[0].Expect.Verdict = policy.Allow }), loader.ErrVectors},
		"trapping vector":     {pkg(func(p *bundle.Package) { p.Module = guest(nil) }), loader.ErrVectors},
		"params break schema": {broken(func(r *bundle.PackageRef) { r.Params = map[string]any{"n": "x"} }), schema.ErrParams},
		"defaults break it":   {pkg(func(p *bundle.Package) { p.ParamsSchema = []byte(`{"required": ["n"]}`) }), schema.ErrParams},
		"schema of nothing":   {pkg(func(p *bundle.Package) { p.ParamsSchema = []byte(`{"type": 1}`) }), schema.ErrSchema},
		"nonsense vector":     {pkg(func(p *bundle.Package) { p.Module = guest([]byte("xxx")) }), loader.ErrVectors},
	} {
		t.Run(name, func(t *testing.T) {
			before, files, told := l.Set(), contents(t, w.dir), len(w.refusals())
			for range 3 {
				err := l.Offer(context.Background(), c.env)
				want, sentinel := c.want.(error)
				if err == nil || sentinel && !errors.Is(err, want) || !sentinel && !errors.As(err, c.want) {
					t.Fatalf("want %v, got %v", c.want, err)
				}
			}
			if l.Set() != before {
				t.Error("the set was changed")
			}
			w.expect(l, 5, policy.Allow)
			after := contents(t, w.dir)
			if after["ratchet"] != files["ratchet"] || !slices.Equal(names(after, "releases"), names(files, "releases")) {
				t.Error("the ratchet or the releases on disk were changed")
			}
			if all := w.refusals(); len(all) != told+1 {
				t.Errorf("told %d times: %v", len(all)-told, all[told:])
			}
			if r := l.Status().Refusal; r == nil || !r.At.Equal(start) || r.Reason == "" {
				t.Errorf("%+v", r)
			}
		})
	}
	w.open(func(c *loader.Config) { c.Source = nil }) // and so it is after a restart
	w.expect(w.open(func(c *loader.Config) { c.Source = nil }), 5, policy.Allow)
}

func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func names(files map[string]string, folder string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, folder+"/") {
			out = append(out, name)
		}
	}
	return out
}

// The digest that Refused is told is the release's only when it was verified.
func TestRefusedDigest(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	unsigned := w.sign(w.release(1, w.publish(says(t, policy.Allow))), w.author)
	late := w.release(2, w.publish(says(t, policy.Allow)))
	late.NotBefore = start.Unix() + 9
	payload, err := late.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.Offer(context.Background(), unsigned)
	l.Offer(context.Background(), w.sign(late))
	if want := []wire.Digest{wire.Sum(unsigned), wire.Sum(payload)}; !slices.Equal(w.names, want) {
		t.Errorf("%v, want %v", w.names, want)
	}
}

func TestTrustRootIsValidated(t *testing.T) {
	w := newWorld(t)
	w.trust.Keys[2].Person = "ann" // author and approver in one person
	if _, err := loader.New(context.Background(), w.config()); !errors.Is(err, bundle.ErrSamePerson) {
		t.Error(err)
	}
}

// A trust root that comes after a release and before its turn judges it: it
// comes into force, unless the root revoked who signed it.
func TestTrustRootOvertakesARelease(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		w := newWorld(t)
		next := *w.trust
		next.Version++
		if revoked {
			another, err := bundle.GenerateKey(bundle.RoleApprover, "bea")
			if err != nil {
				t.Fatal(err)
			}
			next = *bundle.NewTrustRoot("acme", start.AddDate(1, 0, 0), w.root.Key, w.author.Key, another.Key)
			next.Version = w.trust.Version + 1
		}
		root, err := bundle.SignTrustRoot(&next, w.root)
		if err != nil {
			t.Fatal(err)
		}
		l := w.open(nil)
		w.offer(l, w.verdict(1, policy.Deny))
		<-w.recorded
		release := w.verdict(2, policy.Allow)
		l.Deliver(release)
		l.Deliver(root)
		w.run(l)
		if revoked {
			l.Deliver(w.verdict(3, policy.Allow))
			l.Deliver(release)
			time.Sleep(200 * time.Millisecond) // an activation would take a tenth of it
			w.expect(l, 1, policy.Deny)
			if r := w.refusals(); len(r) != 2 || !errors.Is(r[1], bundle.ErrThreshold) {
				t.Errorf("refused: %v", r)
			}
			continue
		}
		if epoch := <-w.recorded; epoch != 2 {
			t.Fatalf("epoch %d in force", epoch)
		}
		time.Sleep(20 * time.Millisecond) // recorded, then swapped
		w.expect(l, 2, policy.Allow)
		if r := w.refusals(); len(r) > 0 {
			t.Errorf("refused on the way: %v", r)
		}
	}
}

func TestColdStart(t *testing.T) {
	w := newWorld(t)
	r := w.release(3, w.publish(says(t, policy.Allow)))
	r.Expires = start.Unix() + 3600
	w.offer(w.open(nil), w.sign(r))
	alone := func(c *loader.Config) { c.Source = nil }
	w.expect(w.open(alone), 3, policy.Allow)
	w.set(func() { w.now = start.AddDate(2, 0, 0) }) // release and trust root have expired
	l := w.open(alone)
	w.expect(l, 3, policy.Allow)
	if err := l.Offer(context.Background(), w.verdict(4, policy.Deny)); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("a new release under an expired root: %v", err)
	}
	w.set(func() { w.now = start.Add(-time.Hour) }) // and the clock goes wrong
	l = w.open(alone)
	w.expect(l, 3, policy.Allow)
	if d := l.Status().ClockBehind; d != time.Hour {
		t.Errorf("clock behind by %v", d)
	}
	if want := []uint64{3, 3, 3, 3}; !slices.Equal(w.activated, want) {
		t.Errorf("activations recorded: %v", w.activated)
	}
}

// A changed byte anywhere in the loader's folder never changes what is decided:
// the release comes into force as it was, or not at all, or with a source again.
func TestDamagedFolder(t *testing.T) {
	w := newWorld(t)
	env1, env2 := w.verdict(1, policy.Deny), w.verdict(2, policy.Allow)
	l := w.open(nil)
	w.offer(l, env1)
	w.offer(l, env2)
	good := contents(t, w.dir)
	inForce := "releases/" + l.Set().Release.Hex() + ".dsse"
	pkg := "packages/" + l.Set().Points[policy.PointCustom].Modules[0].Digest.Hex() + ".hfp"
	flip := func(s string) []byte { b := []byte(s); b[len(b)/2] ^= 4; return b }
	for name, c := range map[string]struct {
		file    string
		content []byte // nil: removed
		alone   bool   // comes into force without a source
	}{
		"ratchet flipped": {"ratchet", flip(good["ratchet"]), true},
		"ratchet empty":   {"ratchet", []byte{}, true},
		"ratchet gone":    {"ratchet", nil, true},
		"ratchet long":    {"ratchet", make([]byte, 1<<20), true},
		"release flipped": {inForce, flip(good[inForce]), false},
		"release gone":    {inForce, nil, false},
		"package flipped": {pkg, flip(good[pkg]), false},
		"package cut":     {pkg, []byte(good[pkg][:40]), false},
		"package gone":    {pkg, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, trust: w.trust, author: w.author, approver: w.approver, engine: w.engine, folder: w.folder,
				dir: t.TempDir(), now: start, recorded: make(chan uint64, 10)}
			for name, content := range good {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				w.write(filepath.Join(w.dir, name), []byte(content))
			}
			if c.content == nil {
				if err := os.Remove(filepath.Join(w.dir, c.file)); err != nil {
					t.Fatal(err)
				}
			} else {
				w.write(filepath.Join(w.dir, c.file), c.content)
			}
			l := w.open(nil)
			if c.alone {
				w.expect(l, 2, policy.Allow)
			} else if l.Set() != nil || l.Status().Refusal == nil {
				t.Fatalf("in force: %+v", l.Status())
			}
			if err := l.Offer(context.Background(), env1); !errors.Is(err, bundle.ErrOlder) {
				t.Errorf("the older release: %v", err)
			}
			w.offer(l, env2)
			w.expect(l, 2, policy.Allow)
		})
	}
}

// A crash at any moment leaves the old release in force or the new one.
func TestCrash(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	w.offer(l, w.verdict(1, policy.Deny))
	old := contents(t, w.dir)
	w.offer(l, w.verdict(2, policy.Allow))
	replaced := contents(t, w.dir)
	restart := func(files map[string]string) *loader.Loader {
		w.dir = t.TempDir()
		for name, content := range files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			w.write(filepath.Join(w.dir, name), []byte(content))
		}
		return w.open(func(c *loader.Config) { c.Source = nil })
	}
	// The files in the order in which they are written; the ratchet is the last.
	state := maps.Clone(old)
	for _, folder := range []string{"packages", "releases"} {
		for _, name := range names(replaced, folder) {
			state[filepath.Join(folder, ".tmp-123")] = replaced[name][:len(replaced[name])/2]
			w.expect(restart(state), 1, policy.Deny)
			if left := contents(t, w.dir); left[filepath.Join(folder, ".tmp-123")] != "" {
				t.Error("a torn temporary file was left")
			}
			delete(state, filepath.Join(folder, ".tmp-123"))
			state[name] = replaced[name]
			w.expect(restart(state), 1, policy.Deny)
		}
	}
	state["ratchet"] = replaced["ratchet"]
	w.expect(restart(state), 2, policy.Allow)
}

// The ratchet is on disk before the activation is recorded, and everything that
// the release needs is there before the ratchet.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.broken = errors.New("journal is poisoned") })
	l := w.open(nil)
	env := w.verdict(1, policy.Allow)
	if err := l.Offer(context.Background(), env); !errors.Is(err, w.broken) {
		t.Fatal(err)
	}
	if l.Set() != nil || l.Status().Epoch != 0 {
		t.Fatal("in force without a record of it")
	}
	files := contents(t, w.dir)
	if files["ratchet"] == "" || len(names(files, "packages")) != 1 || len(names(files, "releases")) != 1 {
		t.Errorf("on disk when the activation is recorded: %v", slices.Sorted(maps.Keys(files)))
	}
	w.set(func() { w.broken = nil })
	w.offer(l, env)
	w.expect(l, 1, policy.Allow)
}

// Run tries again what failed for a passing cause, and tells of it once.
func TestRunTriesAgain(t *testing.T) {
	w := newWorld(t)
	ref := w.publish(says(t, policy.Allow))
	path := filepath.Join(w.folder, "packages", ref.Digest.Hex()+".hfp")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	late := w.release(2, ref)
	late.NotBefore = start.Unix() + 60
	first, second := w.sign(w.release(1, ref)), w.sign(late)
	l := w.open(nil)
	for _, env := range [][]byte{second, first, second, first} {
		if err := l.Offer(context.Background(), env); err == nil {
			t.Fatal("in force without its package, or too early")
		}
	}
	w.run(l)
	w.write(path+".new", file)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if epoch := <-w.recorded; epoch != 1 {
		t.Fatalf("epoch %d first", epoch)
	}
	w.set(func() { w.now = start.Add(time.Minute) })
	if epoch := <-w.recorded; epoch != 2 {
		t.Fatalf("epoch %d second", epoch)
	}
	w.offer(l, second) // waits for the swap
	w.expect(l, 2, policy.Allow)
	if n := len(w.refusals()); n != 2 {
		t.Errorf("told %d times: %v", n, w.refusals())
	}
}

func TestRunFollowsTheFolder(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	put := func(name string, env []byte) { w.write(filepath.Join(w.folder, "releases", name), env) }
	put("z.dsse", w.verdict(1, policy.Deny))
	put("m.dsse", w.verdict(3, policy.Throttle))
	put("a.dsse", w.verdict(2, policy.Deny))
	put("bad.dsse", []byte("{"))
	put("notes.txt", []byte("not a release"))
	put("long.dsse", make([]byte, bundle.MaxEnvelope+9))
	w.run(l)
	if got := <-w.recorded; got != 3 {
		t.Fatalf("epoch %d first; only the newest can still come into force", got)
	}
	last := w.verdict(4, policy.Allow)
	put("n.dsse", last[:len(last)/2]) // a writer that is not atomic
	put("n.dsse", last)
	if err := os.Symlink("n.dsse", filepath.Join(w.folder, "releases", "link.dsse")); err != nil {
		t.Fatal(err)
	}
	if got := <-w.recorded; got != 4 {
		t.Fatalf("epoch %d, want 4", got)
	}
	w.offer(l, last)
	w.expect(l, 4, policy.Allow)
}

// No decision fails because a release is replaced while it is made.
func TestSwapUnderLoad(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	envs := [][]byte{w.verdict(1, policy.Allow)}
	for epoch := uint64(2); epoch <= 20; epoch++ {
		envs = append(envs, w.verdict(epoch, []policy.Verdict{policy.Allow, policy.Throttle}[epoch%2]))
	}
	w.offer(l, envs[0])
	var stop atomic.Bool
	var asked atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			req := request(t)
			for !stop.Load() {
				out := l.Set().Points[policy.PointCustom].Evaluate(req, 1)
				asked.Add(1)
				if out.Runs[0].Trap != "" {
					t.Errorf("trap %s: %s", out.Runs[0].Trap, out.Runs[0].Detail)
					return
				}
			}
		})
	}
	w.run(l) // closes replaced modules while the grace allows
	for _, env := range envs[1:] {
		w.offer(l, env)
	}
	stop.Store(true)
	wg.Wait()
	if asked.Load() == 0 {
		t.Error("nothing was asked")
	}
	w.expect(l, 20, policy.Allow)
}

// Modules of a replaced set answer for the grace and are closed after it.
func TestGrace(t *testing.T) {
	w := newWorld(t)
	l := w.open(func(c *loader.Config) { c.Grace = time.Minute })
	w.offer(l, w.verdict(1, policy.Allow))
	old := l.Set().Points[policy.PointCustom]
	w.offer(l, w.verdict(2, policy.Deny))
	if out := old.Evaluate(request(t), 1); out.Runs[0].Trap != "" {
		t.Fatalf("within the grace: %+v", out.Runs[0])
	}
	w.set(func() { w.now = start.Add(time.Minute) })
	w.run(l)
	w.write(filepath.Join(w.folder, "releases", "3.dsse"), w.verdict(3, policy.Allow))
	<-w.recorded
	<-w.recorded
	<-w.recorded // the loop has gone round at least once
	deadline := time.After(10 * time.Second)
	for old.Evaluate(request(t), 1).Runs[0].Trap == "" {
		select {
		case <-deadline:
			t.Fatal("the module is still open")
		case <-time.After(time.Millisecond):
		}
	}
}
