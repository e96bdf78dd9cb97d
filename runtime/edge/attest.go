package edge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// How often a node says what it enforces: more often while a rollout touches it,
// and at once when something changes, but not in a row faster than attestGap.
const (
	attestEvery   = 2 * time.Second
	attestRolling = 500 * time.Millisecond
	attestGap     = 20 * time.Millisecond
	attestAgain   = 100 * time.Millisecond // after a first one that nobody took
	attestTimeout = 5 * time.Second
)

// attestSoon has the node say what it enforces at once.
func (n *Node) attestSoon() {
	select {
	case n.attestNow <- struct{}{}:
	default:
	}
}

// attest tells Config.Attest what the node says of itself, until ctx ends.
func (n *Node) attest(ctx context.Context) {
	if n.cfg.Attest == nil {
		return
	}
	var serial uint64
	var told *decide.Set // whose first attestation was delivered
	for {
		l := n.live.Load()
		serial++
		first := l.set != nil && l.set != told
		pause := n.attestPause(l)
		switch ok := n.attestOnce(ctx, l, serial, first); {
		case ok && first:
			told = l.set
		case first:
			pause = attestAgain // a hub may not know the release yet
		}
		select {
		case <-ctx.Done():
			return
		case <-n.attestNow:
			pauseFor(ctx, attestGap)
		case <-time.After(pause):
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (n *Node) attestPause(l *live) time.Duration {
	st := n.loader.Status()
	if st.Rolling || st.Shadow || l.set != nil && l.health.Baking(n.cfg.Now()) {
		return attestRolling
	}
	return attestEvery
}

func (n *Node) attestOnce(ctx context.Context, l *live, serial uint64, first bool) bool {
	a := n.Attestation()
	a.Serial = serial
	msg, err := audit.SignAttestation(a, n.key)
	if err != nil {
		n.log.Error("attestation not signed", "err", err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	if err := n.cfg.Attest(ctx, first, a.Epoch, msg); err != nil {
		n.count.attestFailed.Add(1)
		return false
	}
	n.count.attested.Add(1)
	// What was told is of the set that it names; when that was replaced in
	// between, the new one is told of in the next round.
	return l.set == nil || a.Epoch == l.set.Epoch && a.Fallback == l.set.Fallback
}

// Attestation is what the node says of itself now, not signed; its serial is 0.
func (n *Node) Attestation() *audit.Attestation {
	l, st := n.live.Load(), n.loader.Status()
	j := l.journal
	state, age := n.Staleness()
	a := &audit.Attestation{
		Tenant: n.cfg.Tenant, Node: n.cfg.Name, Boot: j.Boot(), Time: n.cfg.Now().UnixNano(),
		RootVersion: st.RootVersion, Ring: st.Ring, Candidate: st.Candidate, Order: st.Order, OrderEpoch: st.OrderEpoch,
		Kills: n.stop.set.Digest(), KillCount: uint64(n.stop.set.Len()),
		Staleness: state.String(), HeartbeatAge: age, Timing: st.Timing,
	}
	if state == guard.Unleased { // nothing is expected to be heard: nothing is late
		a.Staleness = audit.Fresh
	}
	if l.set != nil && st.Epoch != 0 {
		a.Epoch, a.Release, a.Fallback, a.Enforced = st.Epoch, st.Release, st.Fallback, st.Enforced
		a.Activated = st.Since.UnixNano()
		a.Packages = attested(l.set)
		if l.set.Release == st.Enforced { // else it has just been replaced: what was seen of it says nothing of the new one
			a.Live, a.Second = l.health.Observed(), l.sampled.Run()
		}
	}
	// A candidate is one that is evaluated, or refused: what waits, or is still
	// being built, proves nothing, nor does what was seen of the one before it.
	switch c := n.candidate.Load(); {
	case st.CandidateRefused != "":
	case c != nil:
		a.Candidate, a.Shadow = c.rel.Digest, c.health.Observed()
	default:
		a.Candidate = wire.Digest{}
	}
	if v := n.vectorsRun.Load(); v != nil {
		a.Vectors = *v
	}
	if b := n.binary.Load(); b != nil {
		a.Binary = *b
	}
	if boots := j.Boots(); len(boots) > 0 {
		a.Journal = boots[len(boots)-1].Size
	}
	// What is said of the candidate must be of the candidate: the fleet halts by it.
	if a.Refused = short(st.CandidateRefused); st.Candidate.IsZero() && st.Refusal != nil {
		a.Refused = short(st.Refusal.Reason)
	}
	return a
}

// attested lists the digests of the set's packages, sorted, once each; none when
// an attestation has no room for all.
func attested(set *decide.Set) []wire.Digest {
	var all []wire.Digest
	for _, p := range set.Points {
		all = append(all, p.Packages...)
	}
	slices.SortFunc(all, func(a, b wire.Digest) int { return strings.Compare(string(a[:]), string(b[:])) })
	if all = slices.Compact(all); len(all) > audit.MaxAttestedPackages {
		return nil
	}
	return all
}

// hashBinary names the program that the node runs, in the background.
func (n *Node) hashBinary(context.Context) {
	d, err := binaryDigest()
	if err != nil {
		n.log.Warn("attestations do not name the program", "err", err)
		return
	}
	n.binary.Store(&d)
}

// binaryDigest reads the program once, however many nodes a process has.
var binaryDigest = sync.OnceValues(func() (wire.Digest, error) {
	path, err := os.Executable()
	if err != nil {
		return wire.Digest{}, fmt.Errorf("digest of the program: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return wire.Digest{}, fmt.Errorf("digest of the program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return wire.Digest{}, fmt.Errorf("digest of the program: %w", err)
	}
	return wire.Digest(h.Sum(nil)), nil
})
