package ship_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

var everyStep = flag.Bool("full", false, "kill at every step, not at some")

// TestMain lets the test binary be a node that is killed.
func TestMain(m *testing.M) {
	for name, f := range map[string]func(dir string) error{"HOLDFAST_TEST_SHIP": doomed, "HOLDFAST_TEST_TRIM": trimming} {
		if dir := os.Getenv(name); dir != "" {
			if err := f(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
			return
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

const doomedRecords = 40

// doomed is a node in a process of its own that ships, prints the name of each
// record that is durable in a region, and kills itself with SIGKILL at the step
// whose name and number are given.
func doomed(dir string) error {
	at, number, _ := strings.Cut(os.Getenv("HOLDFAST_TEST_STEP"), "/")
	last, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	key, vkey, err := journal.LoadOrCreateKey(filepath.Join(dir, "log.key"), audit.NodeKeyName(tenant, node))
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Tenant: tenant, Node: node, Key: key})
	if err != nil {
		return err
	}
	var hubs []string
	for _, r := range strings.Fields(os.Getenv("HOLDFAST_TEST_REGIONS")) {
		hubs = append(hubs, strings.Split(r, "=")[1])
	}
	edge, err := embed.Leaf(ctx, embed.LeafConfig{Node: node, Login: login, Hubs: hubs})
	if err != nil {
		return err
	}
	conn, err := bus.Connect(ctx, bus.Config{Server: edge})
	if err != nil {
		return err
	}
	var steps atomic.Int64
	c := ship.Config{Node: node, Key: verifier, Journal: j, Linger: time.Millisecond, Step: func(step string) {
		if step == at && steps.Add(1) == last {
			fmt.Println("killed", step)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}
	for i, r := range strings.Fields(os.Getenv("HOLDFAST_TEST_REGIONS")) {
		key, err := note.NewVerifier(strings.Fields(os.Getenv("HOLDFAST_TEST_KEYS"))[i])
		if err != nil {
			return err
		}
		name := strings.Split(r, "=")[0]
		c.Regions = append(c.Regions, ship.Region{Name: name, Key: key, Sink: jetstream.Sink{
			Region: jetstream.Region{Conn: conn, Tenant: tenant, Name: name}, Node: verifier, Ledger: key,
		}})
	}
	s, err := ship.New(c)
	if err != nil {
		return err
	}
	go s.Run(ctx)
	for i := range doomedRecords {
		ref, err := j.Append(ctx, record(i), policy.Synced)
		if err != nil {
			return err
		}
		if i%5 == 4 {
			if err := s.Await(ctx, ref.Boot, ref.Seq, policy.Region); err != nil {
				return err
			}
			fmt.Println("durable", ref.Boot, ref.Seq)
		}
	}
	return s.Wait(ctx, j.Boot(), doomedRecords+1, s.Everywhere())
}

// A node that is killed with SIGKILL at any step of a batch's way loses nothing
// that was acknowledged, and nothing comes twice, in either region.
func TestKillAtEveryStepOfShipping(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	w.must(w.journal.Close())
	w.conn.Close()
	w.edge.Shutdown()
	var regions, keys []string
	for _, r := range w.regions {
		regions, keys = append(regions, r.name+"="+r.link.Addr()), append(keys, r.vkey)
	}
	type name struct {
		boot string
		seq  uint64
	}
	var durable []name
	where := map[string]int{}
	most := 2
	if *everyStep {
		most = 10
	}
	for _, step := range []string{"ship read", "ship publish", "ship acknowledged", "ship receipt", "none"} {
		for number := 1; number <= most; number += 1 + number/2 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "HOLDFAST_TEST_SHIP="+w.dir, fmt.Sprintf("HOLDFAST_TEST_STEP=%s/%d", step, number),
				"HOLDFAST_TEST_REGIONS="+strings.Join(regions, " "), "HOLDFAST_TEST_KEYS="+strings.Join(keys, " "))
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s %d: %v: %s%s", step, number, err, out, exit.Stderr)
			}
			for line := range strings.Lines(string(out)) {
				var n name
				if _, err := fmt.Sscanf(line, "durable %s %d", &n.boot, &n.seq); err == nil {
					durable = append(durable, n)
				} else if step, ok := strings.CutPrefix(line, "killed "); ok {
					where[strings.TrimSpace(step)]++
				}
			}
		}
		if where[step] == 0 && step != "none" {
			t.Errorf("never killed at %q", step)
		}
	}
	t.Logf("killed at %v; %d acknowledgements", where, len(durable))
	w.startEdge()
	w.open()
	t.Cleanup(func() { w.journal.Close() })
	s, _ := w.ship(w.journal, func(e ship.Evidence) { t.Errorf("%+v", e) })
	size := w.write(10)
	w.wait(s, size)
	sizes := map[string]uint64{}
	for _, b := range w.journal.Boots() {
		sizes[b.ID] = b.Size
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		w.must(s.Wait(ctx, b.ID, b.Size, s.Everywhere()))
		cancel()
	}
	for _, n := range durable {
		if sizes[n.boot] < n.seq {
			t.Errorf("record %d of boot %s was acknowledged, the journal has %d", n.seq, n.boot, sizes[n.boot])
		}
	}
	w.complete(size)
}
