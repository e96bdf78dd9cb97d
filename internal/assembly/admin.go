package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/control/release"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// AdminConfig says how an operator reaches a fleet.
type AdminConfig struct {
	Tenant string
	// Root is a trust root of the tenant; newer ones are taken from the regions.
	Root *bundle.TrustRoot
	// URLs are of the NATS servers of hubs, the preferred ones first. Creds are an
	// operator's; CA verifies the servers, "" is the system's.
	URLs      []string
	Creds, CA string
	// Regions are the regions' names, the preferred one first.
	Regions []string
	// NoDomain is for servers that the user runs without a JetStream domain.
	NoDomain bool
	Log      *slog.Logger
}

// An Admin is an operator's connection to a fleet. Any region alone will do.
type Admin struct {
	cfg     AdminConfig
	conn    *bus.Conn
	regions []jetstream.Region
}

// ErrNoRegion means that no region answered.
var ErrNoRegion = errors.New("no region answers")

// OpenAdmin connects.
func OpenAdmin(ctx context.Context, cfg AdminConfig) (*Admin, error) {
	conn, err := bus.Connect(ctx, bus.Config{URLs: cfg.URLs, Creds: cfg.Creds, CA: cfg.CA, Name: "operator", Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	a := &Admin{cfg: cfg, conn: conn}
	for _, name := range cfg.Regions {
		a.regions = append(a.regions, jetstream.Region{Conn: conn, Tenant: cfg.Tenant, Name: name, NoDomain: cfg.NoDomain})
	}
	return a, nil
}

// Close ends the connection.
func (a *Admin) Close() { a.conn.Close() }

// Tenant is whose fleet it is.
func (a *Admin) Tenant() string { return a.cfg.Tenant }

// State is what the regions hold, verified, at one time.
type State struct {
	Fleet       *registry.Fleet
	At          time.Time
	Unreachable []string // regions that did not answer
	// Foreign are the enrolments, kills and lifts that were left out because no
	// trust root from the one of the configuration on names their keys.
	Foreign        int
	foreign, taken map[wire.Digest]bool // envelopes
	attestations   map[string][]registry.Stored
	activations    map[string][]registry.Stored // of the target's epoch
	cosigned       map[string]cosigned
}

// cosigned is what regions' receipts say of a boot, unverified: the highest and
// the lowest of their sizes.
type cosigned struct{ most, least uint64 }

// Read reads every region that answers; ErrNoRegion when none does. The server
// that is lost may be the leader of one region and the way to the other at once,
// so a first failure is tried again while a region may elect.
func (a *Admin) Read(ctx context.Context) (*State, error) {
	for until := time.Now().Add(electing); ; {
		s, err := a.readOnce(ctx)
		if err == nil || !errors.Is(err, bus.ErrUnreachable) || ctx.Err() != nil || time.Now().After(until) {
			return s, err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func (a *Admin) readOnce(ctx context.Context) (*State, error) {
	s := &State{
		Fleet: registry.NewFleet(a.cfg.Root), attestations: map[string][]registry.Stored{},
		activations: map[string][]registry.Stored{}, cosigned: map[string]cosigned{},
		foreign: map[wire.Digest]bool{}, taken: map[wire.Digest]bool{},
	}
	var errs []error
	first := map[uint64]map[string][]registry.Stored{}
	for _, r := range a.regions {
		if err := s.read(ctx, r, first); err != nil {
			errs = append(errs, err)
			s.Unreachable = append(s.Unreachable, r.Name)
		}
	}
	if len(errs) == len(a.regions) {
		return nil, fmt.Errorf("%w: %w", ErrNoRegion, errors.Join(errs...))
	}
	for sum := range s.foreign { // another region may have stored it before its key was revoked
		if !s.taken[sum] {
			s.Foreign++
		}
	}
	s.At = time.Now()
	if t := s.Fleet.Target(); t != nil && first[t.Epoch] != nil {
		s.activations = first[t.Epoch]
	}
	return s, nil
}

func (s *State) read(ctx context.Context, r jetstream.Region, first map[uint64]map[string][]registry.Stored) error {
	objects, err := r.SignedObjects(ctx)
	if err != nil {
		return err
	}
	for _, o := range objects { // what is not believed is not there
		err, sum := s.Fleet.Add(o.Data, o.At), wire.Sum(o.Data)
		switch kind := bundle.Type(o.Data); {
		case err == nil:
			s.taken[sum] = true
		case errors.Is(err, bundle.ErrUnknownKey) && slices.Contains([]string{bundle.EnrolmentType, bundle.KillType, bundle.LiftType}, kind):
			s.foreign[sum] = true
		}
	}
	return r.StoredAttestations(ctx, func(node string, isFirst bool, epoch uint64, msg []byte, at time.Time) {
		into := s.attestations
		if isFirst {
			if first[epoch] == nil {
				first[epoch] = map[string][]registry.Stored{}
			}
			into = first[epoch]
		}
		into[node] = append(into[node], registry.Stored{Data: msg, At: at})
	})
}

// View computes what is in force.
func (s *State) View() registry.View {
	v := s.Fleet.View(s.attestations, s.activations, s.At)
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if c, ok := s.cosigned[n.Name]; ok {
			n.Journal.Shipped, n.Journal.Cosigned = c.most, c.least
		}
	}
	return v
}

// View reads and computes, with how far the regions have counter-signed.
func (a *Admin) View(ctx context.Context) (registry.View, *State, error) {
	s, err := a.Read(ctx)
	if err != nil {
		return registry.View{}, nil, err
	}
	v := s.View()
	for _, n := range v.Nodes {
		if n.Journal.Boot != "" {
			s.cosigned[n.Name] = a.cosigned(ctx, n.Name, n.Journal.Boot)
		}
	}
	return s.View(), s, nil
}

// cosigned asks every region for its newest receipt of a boot. The receipts are
// not verified here: that is `holdfast ledger verify`.
func (a *Admin) cosigned(ctx context.Context, node, boot string) (c cosigned) {
	for i, r := range a.regions {
		var size uint64
		if receipt, err := r.StoredReceipt(ctx, node, boot); err == nil && receipt != nil {
			if point, err := audit.PeekCheckpoint(receipt); err == nil {
				size = point.Size
			}
		}
		c.most = max(c.most, size)
		if c.least = min(c.least, size); i == 0 {
			c.least = size
		}
	}
	return c
}

// electing is how long a region that was there a moment ago may take to find
// another leader for its streams.
const electing = 15 * time.Second

// somewhere has one region take something: the first that answered when state was
// read. One that does not answer any more may have taken it all the same, so it is
// asked again and no other one instead: a release must not begin in two regions.
func (a *Admin) somewhere(ctx context.Context, state *State, put func(jetstream.Region) error) (region string, err error) {
	i := slices.IndexFunc(a.regions, func(r jetstream.Region) bool { return !slices.Contains(state.Unreachable, r.Name) })
	if i < 0 {
		return "", ErrNoRegion
	}
	r := a.regions[i]
	for until := time.Now().Add(electing); ; {
		err := put(r)
		if err == nil {
			return r.Name, nil
		}
		if !errors.Is(err, bus.ErrUnreachable) || ctx.Err() != nil || time.Now().After(until) {
			return "", fmt.Errorf("region %s: %w", r.Name, err)
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// everywhere has every region take something, all at once, and is content with one.
func (a *Admin) everywhere(put func(jetstream.Region) error) error {
	errs := make([]error, len(a.regions))
	var putting sync.WaitGroup
	for i, r := range a.regions {
		putting.Go(func() {
			if err := put(r); err != nil {
				errs[i] = fmt.Errorf("region %s: %w", r.Name, err)
			}
		})
	}
	putting.Wait()
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(errs...)
}

// Publish hands a release that is signed to one region: the packages first,
// then the release. It must replace the newest one there; release.ErrNotNext
// says what to do when it does not. A Publish that failed may be repeated.
func (a *Admin) Publish(ctx context.Context, envelope []byte, packages ...[]byte) (region string, s *bundle.SignedRelease, err error) {
	state, err := a.Read(ctx)
	if err != nil {
		return "", nil, err
	}
	if s, err = state.Fleet.Root().OpenRelease(envelope, time.Now()); err != nil {
		return "", nil, err
	}
	var newest *bundle.SignedRelease
	if n := state.Fleet.Newest(); n != nil {
		newest = n.SignedRelease
	}
	if err := release.Follows(s, newest); err != nil {
		return "", nil, err
	}
	region, err = a.somewhere(ctx, state, func(r jetstream.Region) error { return r.PublishRelease(ctx, s.Epoch, envelope, packages...) })
	return region, s, err
}

// Kill hands a kill or a lift to every region that answers. A lift of a kill that
// no region holds is refused: who mistypes a digest must not believe it lifted.
func (a *Admin) Kill(ctx context.Context, envelope []byte) (digest wire.Digest, err error) {
	// A stop does not wait for the state to be read, unless it takes a newer trust
	// root to see that it is good.
	if k, err := a.cfg.Root.OpenKill(envelope); err == nil {
		return k.Digest, a.everywhere(func(r jetstream.Region) error { return r.PutKill(ctx, k.Digest, envelope) })
	}
	state, err := a.Read(ctx)
	if err != nil {
		return digest, err
	}
	if bundle.Type(envelope) == bundle.LiftType {
		l, err := state.Fleet.Root().OpenLift(envelope)
		if err != nil {
			return digest, err
		}
		for _, d := range l.Kills {
			if !state.Fleet.Kills().HasKill(d) {
				return digest, fmt.Errorf("no kill %s: nothing would be lifted; holdfast kill list prints what there is", d.Hex())
			}
		}
		return l.Digest, a.everywhere(func(r jetstream.Region) error { return r.PutLift(ctx, l.Digest, envelope) })
	}
	k, err := state.Fleet.Root().OpenKill(envelope)
	if err != nil {
		return digest, err
	}
	return k.Digest, a.everywhere(func(r jetstream.Region) error { return r.PutKill(ctx, k.Digest, envelope) })
}

// Enrol hands an enrolment to one region.
func (a *Admin) Enrol(ctx context.Context, envelope []byte) error {
	state, err := a.Read(ctx)
	if err != nil {
		return err
	}
	e, err := state.Fleet.Root().OpenEnrolment(envelope)
	if err != nil {
		return err
	}
	_, err = a.somewhere(ctx, state, func(r jetstream.Region) error { return r.PutEnrolment(ctx, e.Node, e.Serial, envelope) })
	return err
}

// PutRoot hands the next trust root to one region.
func (a *Admin) PutRoot(ctx context.Context, envelope []byte) (*bundle.TrustRoot, error) {
	state, err := a.Read(ctx)
	if err != nil {
		return nil, err
	}
	next, err := state.Fleet.Root().OpenNext(envelope)
	if err != nil {
		return nil, err
	}
	_, err = a.somewhere(ctx, state, func(r jetstream.Region) error { return r.PutRoot(ctx, next.Version, envelope) })
	return next, err
}

// PutData hands a document about records or regions - an erasure, a hold, the end
// of holds, a retirement - to every region that answers. The end of a hold that
// no region knows is refused: who mistypes a digest must not believe it ended.
func (a *Admin) PutData(ctx context.Context, envelope []byte) (wire.Digest, error) {
	state, err := a.Read(ctx)
	if err != nil {
		return wire.Digest{}, err
	}
	d, err := openData(state.Fleet.Root(), envelope)
	if err != nil {
		return wire.Digest{}, err
	}
	for _, h := range d.Release {
		if !slices.ContainsFunc(state.Fleet.Holds(), func(have *bundle.SignedHold) bool { return have.Digest == h }) {
			return d.Digest, fmt.Errorf("no hold %s is in force: nothing would end; holdfast ledger holds prints what there is", h.Hex())
		}
	}
	return d.Digest, a.everywhere(func(r jetstream.Region) error { return r.PutData(ctx, d.Digest, envelope) })
}

// PutAccount hands the JWT of the tenant's account, such as one that revokes a
// user, to every region that answers.
func (a *Admin) PutAccount(ctx context.Context, token string) error {
	serial := time.Now().Unix()
	return a.everywhere(func(r jetstream.Region) error { return r.PutAccount(ctx, serial, token) })
}

// Conn is the connection itself, for what is only listened to.
func (a *Admin) Conn() *bus.Conn { return a.conn }
