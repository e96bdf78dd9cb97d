package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// childEnv makes the test's program a ledger that is killed.
const childEnv = "HOLDFAST_TEST_LEDGER"

// A child is what that ledger needs.
type child struct {
	URL, Dir, Keys, Key string
	Step                string // at whose Nth time it kills itself
	Nth                 int64
	Scrub               bool
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := runChild(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	if dir := os.Getenv(killDir); dir != "" {
		if err := eraseAndDie(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runChild(spec string) error {
	var c child
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := bus.Connect(ctx, bus.Config{URL: c.URL, User: "u", Password: "p"})
	if err != nil {
		return err
	}
	keys, err := audit.ParseKeys([]byte(c.Keys))
	if err != nil {
		return err
	}
	key, err := note.NewSigner(c.Key)
	if err != nil {
		return err
	}
	var n atomic.Int64
	l, err := Open(Config{
		Dir: c.Dir, Tenant: tenant, Region: "ra", Key: key, Keys: keys,
		Input: jetstream.Input{Region: jetstream.Region{Conn: conn, Tenant: tenant, Name: "ra"}},
		Step: func(step string) {
			if step == c.Step && n.Add(1) == c.Nth {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // nothing more happens
			}
		},
	})
	if err != nil {
		return err
	}
	if c.Scrub {
		go l.Scrub(ctx, 0)
	}
	return l.Run(ctx)
}

// killed runs a ledger on the place's first folder until it kills itself.
func (p *place) killed(secret, step string, nth int64, scrub bool) {
	p.t.Helper()
	spec, err := json.Marshal(child{p.hub.ClientURL(), p.dir, string(p.keys.File()), secret, step, nth, scrub})
	must(p.t, err)
	exe, err := os.Executable()
	must(p.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(spec))
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		p.t.Fatalf("it did not come to step %q: %v\n%s", step, err, said.Bytes())
	}
}

// A ledger that is killed at any step loses nothing and doubles nothing, and what
// it published only grows.
func TestKillAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"store", "stored", "synced", "position", "signed", "published", "filled", "merge", "merged"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			secret, vkey, err := note.GenerateKey(rand.Reader, audit.RegionKeyName(tenant, "ra"))
			must(t, err)
			p.key, err = note.NewSigner(secret)
			must(t, err)
			p.keys = &audit.Keys{}
			must(t, p.keys.AddRegion(vkey))
			a, b := newAuthor(t, p.keys, "e1"), newAuthor(t, p.keys, "e2")
			sizes := p.seen(a)
			for n := 1; n <= 200; n += 20 {
				p.ship(a.node, a.boot, a.frame(n, n+19))
				p.ship(b.node, b.boot, b.frame(n, n+19))
			}
			want := uint64(240)
			if strings.HasPrefix(step, "merge") {
				want = 1100
				p.ship(a.node, a.boot, a.frame(201, 500), a.frame(501, 999), a.frame(1000, 1050), a.frame(1051, 1100))
				p.killed(secret, step, 1, false)
			} else if step == "filled" {
				l, stop := p.start()
				p.cosigned(l, a, 200)
				stop()
				must(t, os.Remove(filepath.Join(p.dir, nodesDir, a.node, a.boot, span{41, 60}.file())))
				p.killed(secret, step, 1, false)
			} else {
				p.killed(secret, step, 1, false)
				p.ship(a.node, a.boot, a.frame(191, 230), a.frame(231, 240)) // with other boundaries
				p.killed(secret, step, 1, false)
			}
			l, _ := p.start()
			l.Scrub(t.Context(), 0)
			if step == "filled" {
				want = 200
			}
			p.cosigned(l, a, want)
			p.cosigned(l, b, 200)
			p.receipt(a, want)
			until(t, "complete", func() bool { return p.report().Verdict == audit.VerdictComplete })
			for i, n := range sizes() {
				if i > 0 && n <= sizes()[i-1] {
					t.Fatalf("receipts of %v", sizes())
				}
			}
			if s := l.Status(); s.Records != want+200 || s.Evidence > 0 {
				t.Fatalf("%+v", s)
			}
		})
	}
}
