package ship_test

import (
	"context"
	"errors"
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

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// trimming is a node in a process of its own that trims on the receipts in a file
// and kills itself with SIGKILL at the step of that number.
func trimming(dir string) error {
	last, err := strconv.ParseInt(os.Getenv("HOLDFAST_TEST_STEP"), 10, 64)
	if err != nil {
		return err
	}
	key, vkey, err := journal.LoadOrCreateKey(filepath.Join(dir, "log.key"), audit.NodeKeyName(tenant, node))
	if err != nil {
		return err
	}
	c := ship.Config{Node: node}
	if c.Key, err = note.NewVerifier(vkey); err != nil {
		return err
	}
	j, err := openSmall(dir, key)
	if err != nil {
		return err
	}
	c.Journal = j
	for _, name := range []string{"ra", "rb"} {
		region, err := os.ReadFile(filepath.Join(dir, name+".key"))
		if err != nil {
			return err
		}
		receipt, err := os.ReadFile(filepath.Join(dir, name+".receipt"))
		if err != nil {
			return err
		}
		r := ship.Region{Name: name, Sink: &desk{receipts: [][]byte{receipt}, more: make(chan struct{})}}
		if r.Key, err = note.NewVerifier(string(region)); err != nil {
			return err
		}
		c.Regions = append(c.Regions, r)
	}
	s, err := ship.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go s.Run(ctx)
	old := j.Boots()[0]
	for _, want := range []ship.Need{{Cosigned: 1}, {Cosigned: 2}} {
		size := old.Size
		if want.Cosigned == 2 {
			size = window + 500
		}
		if err := s.Wait(ctx, old.ID, size, want); err != nil {
			return err
		}
	}
	var steps atomic.Int64
	t, err := ship.NewTrimmer(ship.TrimConfig{
		Journal: narrow{j, journal.SpaceLow}, Shipper: s, OneReceipt: func() bool { return os.Getenv("HOLDFAST_TEST_ONE") != "" },
		Record: func(r *audit.AdminRecord) error {
			_, err := j.Append(ctx, &audit.Record{Kind: audit.KindAdmin, Admin: r}, policy.Synced)
			return err
		},
		Step: func(step string) {
			if steps.Add(1) == last {
				fmt.Println(step)
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	if err != nil {
		return err
	}
	return t.Round()
}

func openSmall(dir string, key note.Signer) (*journal.Journal, error) {
	return journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Tenant: tenant, Node: node, Key: key, SegmentBytes: 128 << 10})
}

// A node that is killed with SIGKILL at any step of trimming has everything that no
// region counter-signed, and what one region alone has is gone only where a record
// says so.
func TestKillAtEveryStepOfTrimming(t *testing.T) {
	p := newPlot(t)
	p.fill(2*window + 1000)
	boot := p.journal.Boot()
	for i, size := range []uint64{2*window + 1000, window + 500} {
		r := p.config.Regions[i]
		b, err := p.journal.ReadBatch(boot, size, 1, 0)
		p.must(err)
		receipt, err := audit.Cosign(b.Checkpoint, p.config.Key, p.desks[r.Name].key)
		p.must(err)
		p.must(os.WriteFile(filepath.Join(p.dir, r.Name+".receipt"), receipt, 0o600))
		p.must(os.WriteFile(filepath.Join(p.dir, r.Name+".key"), []byte(p.vkeys[r.Name]), 0o600))
	}
	p.must(p.journal.Close())
	where := map[string]int{}
	for _, one := range []string{"", "1"} {
		for step, ended := 1, false; !ended; step++ {
			dir := filepath.Join(t.TempDir(), "node")
			p.must(os.CopyFS(dir, os.DirFS(p.dir)))
			p.must(os.Chmod(filepath.Join(dir, "log.key"), 0o600))
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "HOLDFAST_TEST_TRIM="+dir, "HOLDFAST_TEST_STEP="+strconv.Itoa(step), "HOLDFAST_TEST_ONE="+one)
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("step %d: %v: %s%s", step, err, out, exit.Stderr)
			}
			if ended = err == nil; !ended {
				where[strings.TrimSpace(string(out))]++
			}
			p.afterTheKill(dir, boot, one != "", ended)
		}
	}
	if where["trim"] < 3 || where["trimmed"] < 3 || where["trim announced"] != 1 {
		t.Errorf("killed at %v", where)
	}
}

// afterTheKill opens the journal again and reads what there is.
func (p *plot) afterTheKill(dir, boot string, one, ended bool) {
	p.t.Helper()
	j, err := openSmall(dir, p.key)
	p.must(err)
	defer j.Close()
	said := false
	for _, b := range j.Boots() {
		for next := b.TrimmedThrough + 1; next <= b.Size; {
			batch, err := j.ReadBatch(b.ID, next, 0, 0)
			if err != nil {
				p.t.Fatalf("boot %s from %d: %v", b.ID, next, err)
			}
			for _, e := range batch.Entries {
				r, err := e.Record(nil)
				p.must(err)
				said = said || r.Admin != nil && r.Admin.Event == ship.EventOneReceipt
			}
			next = batch.Last() + 1
		}
	}
	old := j.Boots()[0]
	allowed := uint64(window)
	if said {
		allowed = old.Size // the boot ended: all of it may go
	}
	if old.ID != boot || old.Damage != nil || old.TrimmedThrough > allowed || said && !one || ended && old.TrimmedThrough == 0 {
		p.t.Fatalf("%+v; said %t", old, said)
	}
}
