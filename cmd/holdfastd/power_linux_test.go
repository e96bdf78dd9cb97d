package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/lossyfs"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A lossy is a disk that loses power, mounted in the place of a folder.
type lossy struct {
	t       *testing.T
	disk    *lossyfs.Disk
	dir     string
	unmount func() error
	rnd     *rand.Rand
	lost    lossyfs.Lost // in all
}

// mountable skips the test where nothing can be mounted.
func mountable(t *testing.T) {
	t.Helper()
	if err := lossyfs.Available(); err != nil {
		needs.Mounting(t, err)
	}
}

// newLossy puts a disk in the place of dir, with what dir has. It skips the test
// where nothing can be mounted.
func newLossy(t *testing.T, dir string) *lossy {
	t.Helper()
	mountable(t)
	seed := *drillSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -seed=%d", seed)
	l := &lossy{t: t, disk: lossyfs.NewDisk(2 * time.Millisecond), dir: dir, rnd: rand.New(rand.NewPCG(seed, 9))}
	was := dir + ".was"
	if err := errors.Join(os.Rename(dir, was), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := l.mount(); errors.Is(err, syscall.EPERM) {
		needs.Mounting(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.unmount(); err != nil {
			t.Error(err)
			unmount(dir)
		}
	})
	if err := copyTree(was, dir); err != nil {
		t.Fatal(err)
	}
	l.disk.Settle()
	return l
}

func (l *lossy) mount() (err error) {
	l.unmount, err = l.disk.Mount(l.dir)
	return err
}

// copyTree copies files and folders with their permissions.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		at := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := e.Info()
		if err != nil || e.IsDir() {
			return errors.Join(err, os.Mkdir(at, info.Mode().Perm()))
		}
		content, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(at, content, info.Mode().Perm()))
	})
}

// powerOff loses power under a process, which is ended then, and mounts what is
// left.
func (l *lossy) powerOff(end func()) {
	l.t.Helper()
	lost := l.disk.PowerOff(l.rnd.Uint64())
	l.lost.Writes += lost.Writes
	l.lost.Names += lost.Names
	end()
	if err := errors.Join(l.unmount(), l.mount()); err != nil {
		l.t.Fatal(err)
	}
}

// A crowd asks one edge as fast as it answers and keeps what was promised.
type crowd struct {
	mu     sync.Mutex
	asked  map[string]bool
	synced []policy.Answer // which said that their record is on the disk
}

// run asks until the context ends or the edge is gone; done waits for it.
func (l *crowd) run(ctx context.Context, url, round string) (done func()) {
	var asking sync.WaitGroup
	for self := range 8 {
		asking.Go(func() {
			c, _ := client.New(client.Config{Node: url}) // it is the daemon's own
			defer c.Close()
			for n := 0; ctx.Err() == nil && l.ask(ctx, c, fmt.Sprintf("%s-%d-%d", round, self, n)) == nil; n++ {
			}
		})
	}
	return asking.Wait
}

func (l *crowd) ask(ctx context.Context, c *client.Client, id string) error {
	l.mu.Lock()
	l.asked[id] = true
	l.mu.Unlock()
	a, err := c.Decide(ctx, policy.PointCustom, []byte(`{"id":"`+id+`","document":{"user":"ada","pad":"`+padding(600)+`"}}`))
	if err != nil {
		return err
	}
	if a.Recorded && a.Durability >= policy.Synced {
		l.mu.Lock()
		l.synced = append(l.synced, a)
		l.mu.Unlock()
	}
	return nil
}

func (l *crowd) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.synced)
}

// TestEdgeLosesPower takes the power away under a busy edge, again and again:
// every answer that said its record is synced has it after the next start, once,
// with that leaf.
func TestEdgeLosesPower(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	disk := newLossy(t, home.Layout().Node("edge-1"))
	f := newFleet(t, 1, "eu") // its daemons only
	if err := os.MkdirAll(f.Node("edge-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.Node("edge-1"), "edge.yaml"), "tenant: demo\nnode: edge-1\nlisten: 127.0.0.1:0\n"+
		"dir: "+disk.dir+"\ntrust_root: "+home.Layout().TrustRoot()+"\nfolder: "+home.Layout().Published()+"\n")
	l := &crowd{asked: map[string]bool{}}
	starts := rounds(5, 60)
	for round := range starts {
		url, err := f.StartEdge("edge-1")
		if err != nil {
			t.Fatalf("start %d: %v", round, err)
		}
		decideUntil(t, url, "ada", policy.Allow)
		proves(t, home, l)
		before := l.count()
		ctx, stop := context.WithCancel(t.Context())
		done := l.run(ctx, url, fmt.Sprint(round))
		wait(t, "the edge is busy", func() bool { return l.count() > before+20 })
		time.Sleep(time.Duration(disk.rnd.Int64N(int64(200 * time.Millisecond)))) // when power goes is not synchronised with anything
		disk.powerOff(func() { f.Process("edge-1").End(syscall.SIGKILL) })
		stop()
		done()
	}
	if _, err := f.StartEdge("edge-1"); err != nil {
		t.Fatal(err)
	}
	proves(t, home, l)
	t.Logf("%d answers have their records after %d losses of power, with %+v in flight", len(l.synced), starts, disk.lost)
	if disk.lost.Writes == 0 {
		t.Error("nothing was in flight: the test does not test")
	}
}

// proves demands what was promised of the export of the node's journal.
func proves(t *testing.T, home *assembly.Home, l *crowd) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if err := assembly.Export(home.Layout(), dir, "", ""); err != nil {
		t.Fatal(err)
	}
	report, h, err := holding(dir, home.Keys(), "edge-1", l.synced)
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != audit.VerdictComplete {
		t.Errorf("the verdict is %s: %+v %+v", report.Verdict, report.Problems, report.Nodes)
	}
	for id, n := range h.asked {
		if id != "" && (n != 1 || !l.asked[id]) {
			t.Errorf("question %q has %d records; it was asked: %v", id, n, l.asked[id])
		}
	}
}

// holding demands of an export the record of every one of a node's answers, once,
// with that leaf.
func holding(dir string, keys *audit.Keys, node string, answers []policy.Answer) (*audit.Report, *held, error) {
	h := &held{refs: map[string]map[audit.Ref]int{}, asked: map[string]int{}, counted: map[string]uint64{}, last: map[string]uint64{}}
	report, err := audit.VerifyEach(os.DirFS(dir), keys, h.take)
	if err = errors.Join(err, h.wrong); err != nil {
		return nil, nil, err
	}
	for _, a := range answers {
		if err := h.has(node, a, a.Seq, false); err != nil {
			return nil, nil, fmt.Errorf("%w; %+v", err, report.Nodes)
		}
	}
	return report, h, nil
}

// TestLedgerLosesPower takes the power away under a hub's ledger, again and again:
// every record of which an answer said that it is counter-signed in two regions is
// on that disk, before the hub can fetch what it lacks; then both regions have all.
func TestLedgerLosesPower(t *testing.T) {
	t.Parallel()
	mountable(t)
	d := newDrill(t)
	publish(t, d.ctx, d.Fleet, func(r *bundle.Release) {
		for i := range r.Points {
			r.Points[i].Durability = policy.Regions
		}
	}, allow(t, "ada"))
	d.kill("eu-1")
	disk := newLossy(t, assembly.LedgerDir(d.data("eu-1")))
	t.Cleanup(func() { d.kill("eu-1") })
	d.startHubs("eu-1")
	for range rounds(3, 20) {
		before := len(d.cosigned("one"))
		wait(t, "answers that are counter-signed", func() bool { return len(d.cosigned("one")) > before+10 })
		d.sometime(200 * time.Millisecond)
		disk.powerOff(func() { d.kill("eu-1") })
		for node := range d.askers {
			if _, err := d.archived("eu-1", node, d.cosigned(node)); err != nil {
				t.Fatal(err)
			}
		}
		d.startHubs("eu-1")
	}
	// A question that waited for a region in vain has two records: see RATIONALE.
	for node, a := range d.askers {
		d.goesOn(node, 20)
		a.mu.Lock()
		answers := a.acked[:len(a.acked):len(a.acked)]
		a.mu.Unlock()
		for _, s := range d.Servers {
			wait(t, s.Name+" has all of "+node, func() bool {
				verdict, err := d.archived(s.Name, node, answers)
				return err == nil && verdict == audit.VerdictComplete
			})
		}
	}
	t.Logf("%d answers of a node were counter-signed; %+v was in flight", len(d.cosigned("one")), disk.lost)
}

// archived returns the verdict on what a server's ledger has, or what is not there
// of a node's answers.
func (d *drill) archived(server, node string, answers []policy.Answer) (verdict string, err error) {
	dir := d.export(server)
	defer os.RemoveAll(dir)
	report, _, err := holding(dir, d.keys, node, answers)
	if err != nil {
		return "", err
	}
	return report.Verdict, nil
}

// cosigned are a node's answers that said they are counter-signed in two regions.
func (d *drill) cosigned(node string) (out []policy.Answer) {
	a := d.askers[node]
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, answer := range a.acked {
		if answer.Durability == policy.Regions {
			out = append(out, answer)
		}
	}
	return out
}
