// Package replay decides again what records say was decided: from the packages
// that a boot's activation leaf names, which must give the same bytes, and from
// those of a candidate, which shows what a release would change.
package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/inorder"
)

// Config says with what a Replayer decides.
type Config struct {
	Engine   *engine.Engine
	Packages *Packages
	// Candidate is the release whose decisions are compared with the recorded
	// ones; nil replays the releases that were in force.
	Candidate *bundle.SignedRelease
	// Different is told of every decision that is not what was recorded, in the
	// order of the records. It is never called twice at once. nil means nobody is.
	Different func(*Difference)
	// Workers decide at once; 0 means as many as there are processors.
	Workers int
}

// A Replayer decides records again. Its methods are for one goroutine.
type Replayer struct {
	cfg       Config
	sets      sets
	candidate *loaded
	boot      boot // whose records come
	report    *Report
	jobs      chan *job // to the workers, in the order of the records
	running   sync.WaitGroup
}

// A boot is what was put in force so far in the boot whose records come.
type boot struct {
	node, boot  string
	activations map[uint64]*activation
}

// A job is the records of one batch.
type job struct {
	node, boot  string
	records     []*audit.Record
	activations map[uint64]*activation // that they name
	out         Report
	different   []*Difference
}

// New begins a replay. Close must be called, whatever happens.
func New(ctx context.Context, cfg Config) (*Replayer, error) {
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	r := &Replayer{cfg: cfg, report: newReport(), jobs: make(chan *job)}
	r.sets = sets{engine: cfg.Engine, packages: cfg.Packages}
	if cfg.Candidate != nil {
		var err error
		if r.candidate, err = r.sets.open(ctx, cfg.Candidate); err != nil {
			return nil, fmt.Errorf("candidate release: %w", err)
		}
	}
	r.running.Go(r.collect)
	return r, nil
}

// Records decides again the decisions among records, which follow those that
// came before of the same boot. They are the callee's. Trouble with a release or
// a package is in the report; the error is that ctx is over.
func (r *Replayer) Records(ctx context.Context, node, bootID string, records []*audit.Record) error {
	if r.boot.node != node || r.boot.boot != bootID {
		r.boot = boot{node: node, boot: bootID, activations: map[uint64]*activation{}}
	}
	j := &job{node: node, boot: bootID, activations: map[uint64]*activation{}, out: *newReport()}
	for _, rec := range records {
		switch {
		case rec.Activation != nil:
			r.boot.activations[rec.Seq] = &activation{record: rec.Activation, seq: rec.Seq}
		case rec.Decision != nil:
			j.records = append(j.records, rec)
			r.name(ctx, j, rec.Decision.Activation)
		}
	}
	if len(j.records) == 0 {
		return ctx.Err()
	}
	select {
	case r.jobs <- j:
		return nil
	case <-ctx.Done():
		j.release()
		return ctx.Err()
	}
}

// name has a job hold the set of an activation that one of its records names.
func (r *Replayer) name(ctx context.Context, j *job, seq uint64) {
	a := r.boot.activations[seq]
	if a == nil || j.activations[seq] != nil || r.candidate != nil {
		return
	}
	if a.err == nil {
		if a.err = r.sets.take(ctx, a); a.err != nil {
			j.out.problem(j.node, j.boot, seq, a.err)
		}
	}
	if a.err != nil {
		j.activations[seq] = a
		return
	}
	held := *a // the set may be closed before the activation is named again
	j.activations[seq] = &held
	a.set = nil
}

// collect has the jobs done, and takes what came of them in their order.
func (r *Replayer) collect() {
	jobs := func(yield func(*job) bool) {
		for j := range r.jobs {
			if !yield(j) {
				return
			}
		}
	}
	for j := range inorder.Map(r.cfg.Workers, jobs, func(j *job) *job { r.work(j); return j }) {
		j.release()
		r.report.add(&j.out)
		if r.cfg.Different != nil {
			for _, d := range j.different {
				r.cfg.Different(d)
			}
		}
	}
}

func (j *job) release() {
	for _, a := range j.activations {
		if a.set != nil {
			a.set.leave()
		}
	}
}

// Close waits for what was begun and returns what was found.
func (r *Replayer) Close(ctx context.Context) (*Report, error) {
	close(r.jobs)
	r.running.Wait()
	err := r.sets.close(ctx)
	if r.candidate != nil {
		err = errors.Join(err, r.candidate.Close(ctx))
	}
	return r.report, err
}
