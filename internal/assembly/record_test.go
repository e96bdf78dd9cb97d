package assembly_test

import (
	"errors"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// An obligation that the asker cannot perform is a denial, in the answer and in
// the record; value and obligations are in the record too.
func TestObligationsAreCheckedBeforeTheRecord(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, `package p

allow := {"verdict": "allow", "obligations": [{"type": "redact"}], "value": {"limit": 3}}
`), nil)
	can := o.ask(`{"document":1,"supported_obligations":["redact"]}`)
	cannot := o.ask(`{"document":1}`)
	if can.Verdict != policy.Allow || len(can.Obligations) != 1 || can.Value == nil {
		t.Errorf("performed: %+v", can)
	}
	if cannot.Verdict != policy.Deny || cannot.Value != nil {
		t.Errorf("not performed: %+v", cannot)
	}
	for _, r := range o.records() {
		switch {
		case r.Kind == audit.KindActivation && (r.Activation.Author == "" || r.Activation.Approver == ""):
			t.Errorf("nobody signed: %+v", r.Activation)
		case r.Kind != audit.KindDecision:
		case r.Seq == can.Seq && (r.Decision.Verdict != policy.Allow || r.Decision.Value == nil || len(r.Decision.Obligations) != 1):
			t.Errorf("record of what was performed: %+v", r.Decision)
		case r.Seq == cannot.Seq && (r.Decision.Verdict != policy.Deny || r.Decision.Value != nil):
			t.Errorf("record of what was not: %+v", r.Decision)
		}
	}
}

// A release whose activation leaf cannot be made durable does not come into
// force; it does once the disk works again.
func TestNoActivationWithoutItsLeaf(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	file := regoPackage(t, allowAda)
	o.publish(file, nil)
	fs.sync.Store(true)
	second := o.handOver(file, func(p *bundle.Point) { p.Durability = policy.Written })
	o.waitFor("the refusal", func() bool { return o.edge.Node().Status().Refused != "" })
	if s := o.edge.Node().Status(); s.Epoch != 1 {
		t.Errorf("epoch %d is in force without its leaf", s.Epoch)
	}
	if a := o.ask(`{"document":{"user":"ada"}}`); a.Epoch != 1 || a.Recorded {
		t.Errorf("%+v", a)
	}
	fs.sync.Store(false)
	o.waitFor("the second release", func() bool { return o.edge.Node().Status().Epoch == second.Epoch })
}

// Every record names an activation of its own boot, also after a repair, and
// what went unrecorded has a time.
func TestRepairAnnouncesWhatIsInForce(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	o.ask(`{"document":1}`) // so that the seqs of the two boots differ
	fs.write.Store(true)
	o.ask(`{"document":1}`)
	fs.write.Store(false)
	o.waitFor("another boot", func() bool { return o.edge.Node().Ready() == nil })
	o.ask(`{"document":1}`)
	activated := map[uint64]bool{}
	for _, r := range o.records() {
		switch r.Kind {
		case audit.KindBoot:
			clear(activated)
		case audit.KindActivation:
			activated[r.Seq] = true
		case audit.KindDecision:
			if !activated[r.Decision.Activation] {
				t.Errorf("record %d names activation %d, which its boot does not have", r.Seq, r.Decision.Activation)
			}
		case audit.KindAdmin:
			if a := r.Admin; a.Event == "unrecorded_answers" && (a.From == 0 || a.To < a.From) {
				t.Errorf("%+v", a)
			}
		}
	}
}

// on_log_failure escalate does not lift a denial.
func TestLogFailureEscalates(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	o.publish(regoPackage(t, allowAda), func(p *bundle.Point) { p.OnLogFailure = policy.FailEscalate })
	fs.write.Store(true)
	for user, verdict := range map[string]policy.Verdict{"ada": policy.RequireApproval, "bob": policy.Deny} {
		if a := o.ask(`{"document":{"user":"` + user + `"}}`); a.Verdict != verdict || a.Recorded {
			t.Errorf("%s: %+v", user, a)
		}
	}
}

// A node that is closed while its journal cannot be written says what happened
// to the disk, not that the journal is closed.
func TestClosingAPoisonedNode(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	fs.write.Store(true)
	o.ask(`{"document":1}`)
	o.waitFor("a failed repair", func() bool { return fs.failed.Load() > 1 })
	err := o.edge.Close()
	o.edge = nil
	if !errors.Is(err, journal.ErrPoisoned) || errors.Is(err, journal.ErrClosed) {
		t.Errorf("%v", err)
	}
}
