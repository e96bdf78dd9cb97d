package edge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/runtime/watch"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Bounds of what is evaluated after the answer. What there is no room for is
// dropped and counted.
const (
	shadowQueue   = 256
	secondQueue   = 64
	shadowSamples = 8 // records of differences, for one candidate

	defaultPerMillion = 10_000

	// The second engine's modules occupy some forty times their packages. It keeps
	// as many open as fit secondBudget, or one; when there is no room for another, all
	// are closed, at most once in secondTurn. One that is larger
	// alone is run again only when the release says how often.
	secondBudget = 512 << 10
	secondTurn   = 10 * time.Second
)

// beside is a decision that is to be made once more.
type beside struct {
	l        *live
	c        *candidate
	point    string
	req      *policy.Request
	path     []string
	isData   bool
	start    time.Time
	decision policy.Decision // that was made
	seq      uint64          // of its record
	module   int             // of the point, for the second engine
}

func (b *beside) evaluate(p *decide.Point) decide.Outcome {
	if b.isData {
		out, _ := p.Data(b.req, b.path, b.start.UnixNano())
		return out
	}
	return p.Evaluate(b.req, b.start.UnixNano())
}

// candidate is a release that is evaluated beside the one in force.
type candidate struct {
	set    *decide.Set
	rel    *bundle.SignedRelease
	health *watch.Health
}

// shadow has live requests evaluated on another set as well; nil ends that.
func (n *Node) shadow(set *decide.Set, rel *bundle.SignedRelease) {
	if set == nil {
		n.candidate.Store(nil)
	} else {
		n.candidate.Store(&candidate{set: set, rel: rel, health: watch.NewHealth(rel.Halt, bundle.Bake{}, n.cfg.Now())})
		n.log.Info("candidate is evaluated beside", "epoch", rel.Epoch, "release", rel.Digest.String())
	}
	n.attestSoon()
}

func (n *Node) shadowLater(point *decide.Point, a *asked, answer *policy.Answer) {
	c := n.candidate.Load()
	if c == nil || point == unknownPath {
		return
	}
	n.shadowing.Offer(beside{
		c: c, point: point.Name, req: a.req, path: a.path, isData: a.isData, start: a.start, decision: a.outcome.Decision, seq: answer.Seq,
	})
}

func (n *Node) runShadow(ctx context.Context) { n.shadowing.Run(ctx, n.evaluateShadow) }

// evaluateShadow decides once more on the candidate and counts what differs.
// Nobody is answered by it.
func (n *Node) evaluateShadow(b beside) {
	if n.candidate.Load() != b.c {
		return
	}
	n.count.shadowed.Add(1)
	differs, verdict := "point", policy.Deny
	if p := b.c.set.Points[b.point]; p != nil {
		begin := time.Now()
		out := b.evaluate(p)
		verdict = out.Decision.Verdict
		b.c.health.Add(verdict, trapped(&out), time.Since(begin))
		if differs = watch.Differs(&b.decision, &out.Decision); differs == "" {
			return
		}
	} else {
		b.c.health.Add(verdict, false, 0)
	}
	n.count.shadowDiffer.Add(1)
	if b.c.health.Differ() <= shadowSamples {
		n.Record(&audit.AdminRecord{Event: "shadow_difference", Text: differs, Detail: map[string]any{
			"release": b.c.rel.Digest.String(), "point": b.point, "in_force": b.decision.Verdict.String(), "candidate": verdict.String(), "record": int64(b.seq),
		}})
	}
}

func trapped(out *decide.Outcome) bool {
	for i := range out.Runs {
		if t := out.Runs[i].Trap; t != "" && t != abi.TrapInput {
			return true
		}
	}
	return false
}

// second re-runs a share of the live decisions on another engine.
type second struct {
	queue *watch.Queue[beside]

	mu     sync.Mutex // guards what follows; held by one worker at a time
	engine *engine.Engine
	of     *decide.Set // whose modules the twins open
	twins  []*twin     // the one that was opened first is the first
	turned time.Time   // when one last took another's place
}

// twin is one module on the second engine.
type twin struct {
	*loader.Twin
	point  string
	module int
	size   uint64 // of its package
}

func (n *Node) secondLater(l *live, point *decide.Point, a *asked) {
	share := l.rel.LivePerMillion
	if share == 0 {
		share = defaultPerMillion
	}
	if point == unknownPath || share < 1_000_000 && rand.Uint64N(1_000_000) >= share {
		return
	}
	n.second.queue.Offer(beside{
		l: l, point: point.Name, module: rand.IntN(max(len(point.Modules), 1)), req: a.req, path: a.path, isData: a.isData, start: a.start,
	})
}

func (n *Node) runSecond(ctx context.Context) {
	n.second.queue.Run(ctx, func(b beside) { n.evaluateSecond(ctx, b) })
}

// evaluateSecond asks one module of the point on both engines. When the two
// disagree, one of them is wrong and nobody knows which: the node steps back.
func (n *Node) evaluateSecond(ctx context.Context, b beside) {
	if n.live.Load().set != b.l.set {
		return
	}
	first := b.l.set.Points[b.point].Only(b.module)
	point, err := n.secondPoint(ctx, b.l, b.point, b.module)
	if err == nil && point == nil {
		n.count.secondSkipped.Add(1)
		return
	}
	if err != nil {
		n.count.secondFailed.Add(1)
		n.alarmOnce("second_engine", "not available: "+err.Error())
		return
	}
	// Both run now: what was answered is of all modules, with the guard's word in it.
	one, two := b.evaluate(first), b.evaluate(point)
	if hostTrap(&one) || hostTrap(&two) {
		n.count.secondFailed.Add(1)
		return
	}
	differs := watch.Differs(&one.Decision, &two.Decision)
	b.l.sampled.Add(differs == "")
	n.count.second.Add(1)
	if differs == "" {
		return
	}
	n.count.secondDisagreed.Add(1)
	cause := fmt.Sprintf("the second engine disagrees at %s: %s", b.point, differs)
	n.alarmOnce("second_engine", cause)
	n.Record(&audit.AdminRecord{Event: "second_engine_disagreed", Text: cause, Detail: map[string]any{
		"release": b.l.set.Release.String(), "first": one.Decision.Verdict.String(), "second": two.Decision.Verdict.String(),
	}})
	n.trip(b.l, cause)
}

// hostTrap reports whether the host itself failed, which says nothing of a module.
func hostTrap(out *decide.Outcome) bool {
	for i := range out.Runs {
		if out.Runs[i].Trap == abi.TrapHost {
			return true
		}
	}
	return false
}

// secondPoint returns a module of a point on the second engine, opened when it is
// first asked for. It is nil when there is no room for it now.
func (n *Node) secondPoint(ctx context.Context, l *live, point string, module int) (*decide.Point, error) {
	s := &n.second
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != l.set {
		s.drop(ctx)
		s.of = l.set
	}
	for _, t := range s.twins {
		if t.point == point && t.module == module {
			return t.Point, nil
		}
	}
	size := sizeOf(l.rel, point, module)
	if size > secondBudget && l.rel.LivePerMillion == 0 || !s.room(ctx, size, n.cfg.Now()) {
		return nil, nil
	}
	if s.engine == nil {
		e, err := engine.New(ctx, engine.Config{Interpreter: true, Log: n.log})
		if err != nil {
			return nil, err
		}
		s.engine = e
	}
	t, err := n.loader.Twin(ctx, l.rel, point, module, s.engine)
	if err != nil {
		return nil, err
	}
	s.twins = append(s.twins, &twin{Twin: t, point: point, module: module, size: size})
	return t.Point, nil
}

func sizeOf(rel *bundle.SignedRelease, point string, module int) uint64 {
	for i := range rel.Points {
		if p := &rel.Points[i]; p.Name == point && module < len(p.Packages) {
			return p.Packages[module].Size
		}
	}
	return 0
}

// room makes room for a module of that size, or reports that it is not its turn.
func (s *second) room(ctx context.Context, size uint64, now time.Time) bool {
	var sum uint64
	for _, t := range s.twins {
		sum += t.size
	}
	if sum == 0 || sum+size <= secondBudget {
		return true
	}
	if now.Sub(s.turned) < secondTurn {
		return false
	}
	s.turned = now
	s.drop(ctx)
	return true
}

// drop closes every module and their engine: what closed modules leave behind in
// an engine must not add up.
func (s *second) drop(ctx context.Context) {
	for _, t := range s.twins {
		_ = t.Close(ctx) // nothing of it is needed any more
	}
	if s.engine != nil {
		_ = s.engine.Close(ctx)
	}
	s.twins, s.engine = nil, nil
}

func (s *second) close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(ctx)
	s.of = nil
}
