package edge

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// vectorsEvery is how often the golden vectors of all that is in force are run.
const vectorsEvery = time.Minute

// runVectors runs the golden vectors of what is in force, one package after the
// other, spread over the minute, until ctx ends.
func (n *Node) runVectors(ctx context.Context) {
	var of *decide.Set
	var run audit.VectorRun
	next := 0
	for {
		l := n.live.Load()
		if of != l.set {
			of, next, run = l.set, 0, audit.VectorRun{}
		}
		packages := 0
		if l.set != nil {
			packages = len(loader.Packages(l.rel))
		}
		wait := time.Second // for a set
		if packages > 0 {
			wait = vectorsEvery / time.Duration(packages)
		}
		if pauseFor(ctx, wait); ctx.Err() != nil {
			return
		}
		if packages == 0 || n.live.Load().set != of {
			continue
		}
		n.runPackage(ctx, l, next, &run)
		if next++; next == packages {
			n.finishVectors(l, run)
			next, run = 0, audit.VectorRun{}
		}
	}
}

// finishVectors keeps a whole run for attestations.
func (n *Node) finishVectors(l *live, run audit.VectorRun) {
	if n.live.Load().set != l.set {
		return
	}
	run.At = n.cfg.Now().UnixNano()
	n.vectorsRun.Store(&run)
}

// RunVectors runs the golden vectors of all that is in force now.
func (n *Node) RunVectors(ctx context.Context) audit.VectorRun {
	l := n.live.Load()
	var run audit.VectorRun
	if l.set == nil {
		return run
	}
	for i := range loader.Packages(l.rel) {
		n.runPackage(ctx, l, i, &run)
	}
	n.finishVectors(l, run)
	return run
}

// runPackage runs one package's vectors on the modules that decide. One that
// fails is evidence against what is in force; vectors that cannot be read are
// not, and raise an alarm.
func (n *Node) runPackage(ctx context.Context, l *live, i int, run *audit.VectorRun) {
	ref := loader.Packages(l.rel)[i]
	results, err := n.loader.RunVectors(ctx, l.set, l.rel, ref)
	if ctx.Err() != nil || n.live.Load().set != l.set {
		return // the modules may have been closed meanwhile
	}
	if err != nil {
		n.count.vectorsFailed.Add(1)
		n.log.Error("golden vectors not run", "package", ref.Name, "err", err)
		n.alarmOnce("vectors", fmt.Sprintf("not run: package %s: %v", ref.Name, err))
		return
	}
	failed := ""
	for _, r := range results {
		if r.Trap == abi.TrapHost {
			continue // the host failed, which says nothing of the module
		}
		if r.Passed() {
			run.Passed++
			continue
		}
		run.Failed++
		if failed == "" {
			failed = r.Name
		}
	}
	n.count.vectors.Add(uint64(len(results)))
	if failed == "" {
		return
	}
	n.count.vectorsFailed.Add(1)
	cause := fmt.Sprintf("golden vector %q of package %s fails", failed, ref.Name)
	n.alarmOnce("vectors", cause)
	n.Record(&audit.AdminRecord{Event: "vectors_failed", Text: cause, Detail: map[string]any{"release": l.set.Release.String(), "package": ref.Digest.String()}})
	n.trip(l, cause)
}
