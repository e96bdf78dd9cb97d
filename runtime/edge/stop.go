package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const (
	saveHeardEvery = 5 * time.Second
	maxUnknown     = 16
	maxDiscarded   = 256
	maxWaiting     = 256
)

// stop is what stands before every decision.
type stop struct {
	kills atomic.Pointer[guard.Kills]
	lease atomic.Pointer[guard.Lease]

	arming sync.Mutex // held while the set and its index change; not over I/O
	set    bundle.KillSet

	word word

	hearing sync.Mutex // guards what follows
	saving  sync.Mutex // held over the I/O of the file
	dirty   bool
	saved   time.Time
}

// KillDir is where a person puts kills for a node whose folder is dir: *.dsse.
func KillDir(dir string) string { return filepath.Join(dir, "kills") }

// keptDir is where the node itself keeps every kill and lift that it took.
func (n *Node) keptDir() string { return filepath.Join(n.cfg.Dir, "stop") }

func (n *Node) heardFile() string { return filepath.Join(n.cfg.Dir, "heard") }

func (n *Node) enrolmentFile() string { return filepath.Join(n.cfg.Dir, "enrolment.dsse") }

// instant is a moment on the node's two clocks.
func (n *Node) instant(t time.Time) guard.Instant {
	return guard.Instant{Mono: int64(t.Sub(n.began)), Wall: t.UnixNano()}
}

// openStop reads the enrolment, the kills and what was heard before.
func (n *Node) openStop() error {
	for _, dir := range []string{n.keptDir(), KillDir(n.cfg.Dir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("kills: %w", err)
		}
	}
	n.stop.word.former(n.loader.Roots()[1:])
	if err := n.readHeard(); err != nil {
		return err
	}
	if err := n.readKept(); err != nil {
		return err
	}
	if env, err := os.ReadFile(n.enrolmentFile()); err == nil {
		n.takeEnrolment(env, false)
	}
	if n.cfg.Enrolment != nil {
		n.takeEnrolment(n.cfg.Enrolment, true)
	}
	n.rearm()
	if l := n.live.Load(); l.set != nil { // the labels were not known when it came into force
		next := *l
		next.inForce = n.newInForce(l.set, l.rel)
		n.live.Store(&next)
	}
	return nil
}

// readKept reads the kills that were taken before. A key that was revoked since
// takes none of them back, nor does a configuration that begins with a newer trust
// root: a kill that nothing verifies any more stays, a lift does not.
func (n *Node) readKept() error {
	entries, err := os.ReadDir(n.keptDir())
	if err != nil {
		return fmt.Errorf("kills: %w", err)
	}
	roots := n.loader.Roots()
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".dsse") {
			continue
		}
		env, err := os.ReadFile(filepath.Join(n.keptDir(), e.Name()))
		if err == nil {
			err = n.keep(env, roots)
		}
		if err != nil {
			n.log.Error("a kill that was taken before cannot be read", "file", e.Name(), "err", err)
			n.alarm("kill_lost", fmt.Sprintf("%s: %v", e.Name(), err))
		}
	}
	return nil
}

func (n *Node) keep(env []byte, roots []*bundle.TrustRoot) (err error) {
	for _, root := range roots {
		var k *bundle.SignedKill
		var l *bundle.SignedLift
		if k, err = root.OpenKill(env); err == nil {
			_, err = n.stop.set.AddKill(k)
			return err
		}
		if l, err = root.OpenLift(env); err == nil {
			_, err = n.stop.set.AddLift(l)
			return err
		}
	}
	if k, e := bundle.UnverifiedKill(env); e == nil && k.Tenant == n.loader.Root().Tenant {
		_, err = n.stop.set.AddKill(k)
	}
	return err
}

// rearm compiles the kills in force.
func (n *Node) rearm() {
	n.stop.arming.Lock()
	defer n.stop.arming.Unlock()
	n.stop.kills.Store(guard.NewKills(n.stop.set.Active()))
}

// takeKill puts a kill in force, then stores it. One that cannot be stored is in
// force all the same.
func (n *Node) takeKill(env []byte) {
	k, err := n.loader.Root().OpenKill(env)
	if err != nil {
		n.wait(env, err)
		return
	}
	n.enforceKill(k, env)
}

func (n *Node) enforceKill(k *bundle.SignedKill, env []byte) {
	added, err := n.stop.set.AddKill(k)
	if !added {
		n.killsFull(err)
		return
	}
	n.rearm()
	n.attestSoon()
	n.store(k.Digest, env)
	n.log.Warn("kill in force", "kill", k.Digest.String(), "scope", string(k.Scope), "reason", k.Reason)
	n.Record(&audit.AdminRecord{Event: "kill", Actor: strings.Join(k.Persons, ", "), Text: k.Reason,
		Detail: map[string]any{"kill": k.Digest.String(), "scope": string(k.Scope)}})
}

// takeLift stores a lift, then lets it end its kills: what cannot be stored
// would be forgotten by a restart, and makes nothing looser now.
func (n *Node) takeLift(env []byte) {
	l, err := n.loader.Root().OpenLift(env)
	if err != nil {
		n.wait(env, err)
		return
	}
	n.enforceLift(l, env)
}

func (n *Node) enforceLift(l *bundle.SignedLift, env []byte) {
	if !n.store(l.Digest, env) {
		return
	}
	added, err := n.stop.set.AddLift(l)
	if !added {
		n.killsFull(err)
		return
	}
	n.rearm()
	n.attestSoon()
	var kills []any
	for _, d := range l.Kills {
		kills = append(kills, d.String())
	}
	n.log.Warn("kills lifted", "lift", l.Digest.String(), "kills", kills, "reason", l.Reason)
	n.Record(&audit.AdminRecord{Event: "lift", Actor: strings.Join(l.Persons, ", "), Text: l.Reason,
		Detail: map[string]any{"lift": l.Digest.String(), "kills": kills}})
}

func (n *Node) killsFull(err error) {
	if errors.Is(err, bundle.ErrKillsFull) {
		n.alarmOnce("kills_full", err.Error())
	}
}

func (n *Node) store(d wire.Digest, env []byte) bool {
	path := filepath.Join(n.keptDir(), d.Hex()+".dsse")
	if _, err := os.Stat(path); err == nil {
		return true
	}
	if err := loader.Replace(path, env); err != nil {
		n.log.Error("kill not stored", "kill", d.String(), "err", err)
		n.alarm("kill_not_stored", err.Error())
		return false
	}
	return true
}

// takeHeartbeat renews the lease.
func (n *Node) takeHeartbeat(env []byte) {
	h, err := n.loader.Root().OpenHeartbeat(env)
	if err != nil {
		n.discard(env, err)
		return
	}
	if h.Expires > n.cfg.Now().UnixNano() {
		n.believe(h.Kills)
	}
	if h.KillCount > uint64(n.stop.set.Len()) {
		// A stop order is on its way. Until it is here the node is no surer of itself
		// than before; else one that was cut off would decide again until it comes.
		n.count.killsBehind.Store(true)
		return
	}
	n.stop.hearing.Lock()
	now := n.cfg.Now()
	next, counts := n.stop.lease.Load().Hear(&h.Heartbeat, n.instant(now))
	if !counts {
		n.stop.hearing.Unlock()
		return
	}
	n.stop.lease.Store(next)
	n.stop.dirty = true
	due := now.Sub(n.stop.saved) >= saveHeardEvery
	n.stop.hearing.Unlock()
	heard := wire.Sum(env)
	n.heard.Store(&heard)
	n.count.heartbeats.Add(1)
	n.count.killsBehind.Store(h.Kills != n.stop.set.Digest())
	if due {
		if err := n.saveHeard(); err != nil {
			n.log.Error("what was heard is not stored", "err", err)
		}
	}
}

// heardDocument is what a node keeps of what it heard, so that a restart renews
// no lease. Times are in nanoseconds since 1970.
type heardDocument struct {
	Began   int64         `cbor:"began"`
	Highest int64         `cbor:"highest"`
	Regions []heardRegion `cbor:"regions,omitempty"`
}

type heardRegion struct {
	Name     string `cbor:"name"`
	Serial   uint64 `cbor:"serial"`
	Time     int64  `cbor:"time"`
	Received int64  `cbor:"received"` // by the node's clock
}

type heardSum struct {
	Body []byte      `cbor:"body"`
	Sum  wire.Digest `cbor:"sum"`
}

// saveHeard stores what was heard since it was stored last.
func (n *Node) saveHeard() error {
	n.stop.saving.Lock()
	defer n.stop.saving.Unlock()
	n.stop.hearing.Lock()
	now := n.cfg.Now()
	l, dirty := n.stop.lease.Load(), n.stop.dirty
	n.stop.dirty, n.stop.saved = false, now
	n.stop.hearing.Unlock()
	if !dirty {
		return nil
	}
	at := n.instant(now)
	doc := heardDocument{Began: l.Began.Time, Highest: l.Highest}
	for _, r := range l.Regions {
		doc.Regions = append(doc.Regions, heardRegion{Name: r.Name, Serial: r.Serial, Time: r.Time, Received: at.Wall - (at.Mono - r.Mono)})
	}
	body, err := wire.Marshal(doc)
	if err != nil {
		return fmt.Errorf("heard: %w", err)
	}
	file, err := wire.Marshal(heardSum{Body: body, Sum: wire.Sum(body)})
	if err != nil {
		return fmt.Errorf("heard: %w", err)
	}
	return loader.Replace(n.heardFile(), file)
}

// readHeard takes the lease up where it was. A node that had a release in force
// and does not know what it heard was last sure at the ratchet's highest time.
func (n *Node) readHeard() error {
	doc, err := decodeHeard(n.heardFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Error("what was heard before cannot be read", "err", err)
	}
	ratchet, passed := n.loader.Ratchet(), int64(0)
	if ratchet.HighestTime > 0 {
		passed = ratchet.HighestTime * int64(time.Second)
	}
	at := n.instant(n.cfg.Now())
	l := &guard.Lease{Expected: n.loader.Root().HasRole(bundle.RoleHeartbeat), Highest: max(doc.Highest, passed)}
	if err != nil && ratchet.Epoch != 0 && l.Expected {
		doc.Began = max(passed, 1)
	}
	if doc.Began != 0 {
		l.Began = guard.Region{Time: doc.Began, Mono: at.Mono - max(0, at.Wall-doc.Began)}
	}
	for _, r := range doc.Regions {
		l.Regions = append(l.Regions, guard.Region{Name: r.Name, Serial: r.Serial, Time: r.Time, Mono: at.Mono - max(0, at.Wall-r.Received)})
	}
	if l.Began.Time == 0 && l.Expected && ratchet.Epoch != 0 { // under a trust root without heartbeats, until now
		l.Began = guard.Region{Time: at.Wall, Mono: at.Mono}
	}
	n.stop.word.forget(n.loader.Root(), l.Regions)
	n.stop.lease.Store(l)
	n.stop.dirty = true
	return n.saveHeard()
}

func decodeHeard(path string) (doc heardDocument, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return doc, err
	}
	var f heardSum
	if err := wire.Unmarshal(b, &f); err != nil {
		return doc, err
	}
	if wire.Sum(f.Body) != f.Sum {
		return doc, errors.New("its digest does not match")
	}
	return doc, wire.Unmarshal(f.Body, &doc)
}

// beginLease begins the node's first lease when it first puts a release in force,
// durably: a restart does not begin another one.
func (n *Node) beginLease() error {
	l := n.stop.lease.Load()
	if l == nil || !l.Expected || l.Began.Time != 0 {
		return nil // nil: the node is being opened; readHeard takes the lease up
	}
	n.stop.hearing.Lock()
	at := n.instant(n.cfg.Now())
	next := *n.stop.lease.Load()
	next.Began = guard.Region{Time: at.Wall, Mono: at.Mono}
	n.stop.lease.Store(&next)
	n.stop.dirty = true
	n.stop.hearing.Unlock()
	return n.saveHeard()
}

// rooted has the lease follow a new trust root: whether heartbeats are expected,
// and of which regions.
func (n *Node) rooted(root *bundle.TrustRoot) {
	n.stop.word.former(n.loader.Roots()[1:])
	n.stop.hearing.Lock()
	next := *n.stop.lease.Load()
	next.Expected = root.HasRole(bundle.RoleHeartbeat)
	next.Regions = nil
	for _, r := range n.stop.lease.Load().Regions {
		if holds(root, r.Name) {
			next.Regions = append(next.Regions, r)
		}
	}
	n.stop.word.forget(root, next.Regions)
	if at := n.instant(n.cfg.Now()); next.Expected && next.Began.Time == 0 && n.live.Load().set != nil {
		next.Began = guard.Region{Time: at.Wall, Mono: at.Mono}
	}
	n.stop.lease.Store(&next)
	n.stop.dirty = true
	n.stop.hearing.Unlock()
	n.mu.Lock()
	unknown := n.unknown
	n.unknown = nil
	n.mu.Unlock()
	for _, env := range unknown {
		n.Deliver(env)
	}
}

func holds(root *bundle.TrustRoot, region string) bool {
	for _, k := range root.Keys {
		if k.Role == bundle.RoleHeartbeat && k.Person == region {
			return true
		}
	}
	return false
}

// takeEnrolment follows the newest enrolment of this node.
func (n *Node) takeEnrolment(env []byte, news bool) {
	var e *bundle.SignedEnrolment
	var err error
	roots := n.loader.Roots()
	if news {
		roots = roots[:1]
	}
	for _, root := range roots {
		if e, err = root.OpenEnrolment(env); err == nil {
			break
		}
	}
	if err != nil {
		n.discard(env, err)
		return
	}
	if e.Node != n.cfg.Name {
		return
	}
	n.mu.Lock()
	if n.enrolment != nil && e.Serial <= n.enrolment.Serial {
		n.mu.Unlock()
		return
	}
	n.enrolment = e
	n.mu.Unlock()
	n.loader.Enrol(e.Labels, e.MinEpoch)
	if !news {
		return
	}
	if err := loader.Replace(n.enrolmentFile(), env); err != nil {
		n.log.Error("enrolment not stored", "err", err)
	}
	n.log.Info("enrolment", "serial", e.Serial, "labels", e.Labels, "retired", e.Retired)
	n.Record(&audit.AdminRecord{Event: "enrolment_changed", Actor: strings.Join(e.Persons, ", "), Count: e.Serial,
		Detail: map[string]any{"enrolment": e.Digest.String(), "retired": e.Retired}})
	if e.LogKey != n.vkey {
		n.alarm("enrolment", "the enrolment is for another log key: what this node attests does not count")
	}
	if e.Secret != "" && e.Secret != n.secret.ID() {
		n.alarm("secret", fmt.Sprintf("the enrolment names the tenant secret %s, this node has %s: values that it masks cannot be joined with those of other nodes", e.Secret, n.secret.ID()))
	}
	n.attestSoon()
}

func (n *Node) labels() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.enrolment == nil {
		return nil
	}
	return n.enrolment.Labels
}

// Deliver takes a signed document. It does not wait for a release to come into
// force: kills, lifts, heartbeats and enrolments are acted on before it returns.
func (n *Node) Deliver(env []byte) {
	switch bundle.Type(env) {
	case bundle.KillType:
		n.takeKill(env)
	case bundle.LiftType:
		n.takeLift(env)
	case bundle.HeartbeatType:
		n.takeHeartbeat(env)
	case bundle.EnrolmentType:
		n.takeEnrolment(env, true)
	case bundle.ErasureType:
		n.takeErasure(env)
	case bundle.RetirementType:
		n.takeRetirement(env)
	default:
		n.loader.Deliver(env)
	}
}

// discard tells once of a document that is not believed, and keeps it for a
// while when a newer trust root may verify it.
func (n *Node) discard(env []byte, why error) {
	n.count.discarded.Add(1)
	n.mu.Lock()
	told := n.discarded[why.Error()]
	if len(n.discarded) >= maxDiscarded {
		clear(n.discarded)
	}
	n.discarded[why.Error()] = true
	if errors.Is(why, bundle.ErrUnknownKey) || errors.Is(why, bundle.ErrThreshold) {
		if len(n.unknown) == maxUnknown {
			n.unknown = n.unknown[1:]
		}
		n.unknown = append(n.unknown, append([]byte(nil), env...))
	}
	n.mu.Unlock()
	if !told {
		n.warnings.Warn(n.log, "document refused", "type", bundle.Type(env), "reason", why.Error())
	}
}

// follow takes what the source brings, and the kills that people put into the
// node's folder, until ctx ends.
func (n *Node) follow(ctx context.Context) {
	var wait sync.WaitGroup
	defer wait.Wait()
	if n.cfg.Source != nil {
		wait.Go(func() { loader.Follow(ctx, n.cfg.Source, n.Deliver, time.Second, n.log) })
	}
	own := loader.FolderSource{Dir: n.cfg.Dir, Only: []string{filepath.Base(KillDir(n.cfg.Dir))}}
	loader.Follow(ctx, own, n.Deliver, time.Second, n.log)
}
