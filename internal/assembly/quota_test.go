package assembly_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// big asks for a decision whose record does not compress.
func (o *one) big() policy.Answer {
	noise := make([]byte, 100_000)
	rand.Read(noise)
	return o.ask(`{"document":{"user":"ada","noise":"` + hex.EncodeToString(noise) + `"}}`)
}

// A quota that is used up is announced before, deletes nothing, has on_log_failure
// answer, and when there is room again the first record counts what has none.
func TestJournalQuota(t *testing.T) {
	o := newOne(t)
	o.cfg.Journal.Quota = 64 << 20
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	j, recorded := o.edge.Node().Journal(), 0
	for s := j.Space(); s.Used <= s.Quota/5*4; s = j.Space() {
		noise := make([]byte, 600<<10)
		rand.Read(noise)
		if _, err := j.Append(t.Context(), &audit.Record{Kind: audit.KindDecision, Decision: &audit.DecisionRecord{Request: audit.NewPart(nil, noise)}}, policy.Synced); err != nil {
			t.Fatal(err)
		}
		recorded++
	}
	o.waitFor("the announcement", func() bool { return announced(o, "low") })
	last := o.big()
	for ; last.Recorded && recorded < 1000; last = o.big() {
		recorded++
	}
	if last.Verdict != policy.Deny || last.Durability != policy.NotRecorded || len(last.Reasons) == 0 || last.Reasons[0].Code != "log_failure" {
		t.Fatalf("after %d records: %+v", recorded, last)
	}
	for range 4 {
		if a := o.ask(`{"document":{"user":"ada"}}`); a.Recorded || a.Verdict != policy.Deny {
			t.Fatalf("without room: %+v", a)
		}
	}
	o.waitFor("the second announcement", func() bool { return announced(o, "full") })
	o.big()
	o.stop()
	o.cfg.Journal.Quota = 1 << 30
	o.start()
	o.waitFor("the release", func() bool { return o.edge.Ready() == nil })
	if a := o.big(); !a.Recorded || a.Verdict != policy.Allow {
		t.Fatalf("with room: %+v", a)
	}
	decisions, lost, counts := 0, uint64(0), 0
	for _, r := range o.records() {
		switch {
		case r.Decision != nil:
			decisions++
		case r.Admin != nil && r.Admin.Event == "unrecorded_answers":
			lost += r.Admin.Count
			counts++
		}
	}
	if decisions != recorded+1 || lost != 6 || counts != 1 {
		t.Errorf("%d decisions, %d were answered as recorded; %d counted as unrecorded in %d records", decisions, recorded+1, lost, counts)
	}
}

// announced reports whether the running journal says that its room is at a level.
func announced(o *one, level string) bool {
	j := o.edge.Node().Journal()
	for next := uint64(1); ; {
		b, err := j.ReadBatch(j.Boot(), next, 0, 0)
		if err != nil {
			return false
		}
		for _, e := range b.Entries {
			r, err := e.Record(nil)
			if err == nil && r.Admin != nil && r.Admin.Event == "journal_space" && r.Admin.Text == level {
				return true
			}
		}
		next = b.Last() + 1
	}
}

// What both regions have counter-signed leaves a node's disk, and is complete in
// both ledgers.
func TestTrimmedNode(t *testing.T) {
	cfg := assembly.FleetConfig{Dir: t.TempDir(), Regions: 2, Edges: 1, Journal: assembly.EdgeJournal{Retention: time.Second}}
	f := startFleet(t, cfg)
	enforce(t, f, regoPackage(t, allowAda))
	c, err := client.New(client.Config{Node: f.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last policy.Answer
	for range 20 {
		if last, err = c.Decide(context.Background(), "custom", []byte(`{"document":{"user":"ada"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(edge.JournalDir(f.Layout().Node("edge-1")), last.Boot)
	if segments(t, old) == 0 {
		t.Fatal("nothing to trim")
	}
	f = startFleet(t, cfg)
	for end := time.Now().Add(timeout); segments(t, old) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not trimmed")
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, region := range f.RegionNames() {
		dir := filepath.Join(t.TempDir(), region)
		if err := assembly.Export(f.Layout(), dir, region, ""); err != nil {
			t.Fatal(err)
		}
		report, err := audit.Verify(os.DirFS(dir), f.Keys())
		if err != nil || report.Verdict != audit.VerdictComplete || len(report.Nodes[0].Boots) != 2 || report.Nodes[0].Boots[0].To < last.Seq {
			t.Errorf("region %s: %v, %+v", region, err, report)
		}
	}
}

// segments counts the segment files of a boot.
func segments(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(fmt.Errorf("boot: %w", err))
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".seg") {
			n++
		}
	}
	return n
}
