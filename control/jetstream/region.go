package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// ErrConflict means that the subject of an object already holds other bytes:
// two releases with one epoch, an order whose serial is taken, or a blob that is
// not what its digest says.
var ErrConflict = errors.New("another object has this name")

// ErrNoPackage means that no region's stream has the whole package.
var ErrNoPackage = errors.New("package is not there")

const (
	poll  = 500 * time.Millisecond
	retry = 250 * time.Millisecond
)

// Create makes the region's streams, or brings them to this configuration:
// signed objects and blobs (POL, immutable), record batches (REC), the last
// receipt of each boot (RCPT), attestations and the lease (STATE). It waits for
// a cluster that has no leader yet until ctx ends.
func (r Region) Create(ctx context.Context) error {
	conf := func(kinds ...string) bus.StreamConfig {
		c := bus.StreamConfig{MaxMsgSize: maxMessage, Announce: announce(r.Tenant, r.Name), AnnounceData: true, Replicas: r.Replicas}
		for _, k := range kinds {
			c.Subjects = append(c.Subjects, r.prefix()+k)
		}
		return c
	}
	policies, records, receipts, state := conf("pol.>", "blob.>"), conf("rec.>"), conf("rcpt.>"), conf("att.*", "act.*.*", "lease")
	policies.Immutable, receipts.LastOnly, state.LastOnly, records.AnnounceData = true, true, true, false
	records.Erasable = true
	return errors.Join(
		ensure(ctx, r.policies(), policies),
		ensure(ctx, r.records(), records),
		ensure(ctx, r.receipts(), receipts),
		ensure(ctx, r.state(), state),
	)
}

// Missing reports whether one of the region's streams is not there.
func (r Region) Missing(ctx context.Context) (bool, error) {
	for _, s := range []*bus.Stream{r.policies(), r.records(), r.receipts(), r.state()} {
		if _, err := s.Created(ctx); errors.Is(err, bus.ErrNotFound) {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, nil
}

func ensure(ctx context.Context, s *bus.Stream, c bus.StreamConfig) error {
	for {
		err := s.Ensure(ctx, c)
		if !errors.Is(err, bus.ErrUnreachable) {
			return err
		}
		if sleep(ctx, retry) != nil {
			return err
		}
	}
}

// PublishRelease stores the packages (.hfp files) and, when all of them are
// acknowledged, the release's envelope under its epoch. What is there already is
// left alone, so that one which failed can be repeated. ErrConflict when the
// epoch is taken by another release. Nil means that most of the region's servers
// have it on disk.
func (r Region) PublishRelease(ctx context.Context, epoch uint64, envelope []byte, packages ...[]byte) error {
	contents := make([][]byte, len(packages))
	for i, file := range packages {
		content, err := wire.Decompress(file, MaxPackage)
		if err != nil {
			return fmt.Errorf("publish package %d: %w", i, err)
		}
		contents[i] = content
	}
	if err := r.prepare(ctx, epoch, contents); err != nil {
		return err
	}
	return r.create(ctx, r.pol(kindRelease, decimal(epoch)), envelope)
}

// Leader returns the region in which the release of an epoch was published,
// whose hubs lead its rollout; "" when this region does not know it. Nobody
// signed it: it says who acts, and every order says who did.
func (r Region) Leader(ctx context.Context, epoch uint64) (string, error) {
	m, err := r.policies().Last(ctx, r.pol(kindLead, decimal(epoch)))
	if errors.Is(err, bus.ErrNotFound) {
		return "", nil
	}
	return string(m.Data), err
}

// PutRoot stores a trust root's envelope; ErrConflict when the version is taken.
func (r Region) PutRoot(ctx context.Context, version uint64, envelope []byte) error {
	return r.create(ctx, r.pol(kindRoot, decimal(version)), envelope)
}

// PutOrder creates a rollout order; ErrConflict when somebody has created
// another one of this serial. Nil means that the region has it on disk, and that
// no other order of this serial can come after it.
func (r Region) PutOrder(ctx context.Context, epoch, serial uint64, envelope []byte) error {
	return r.create(ctx, r.pol(kindOrder, decimal(epoch), decimal(serial)), envelope)
}

// PutKill tells every node at once and stores the kill, whose digest names it.
// An error means that it may not be stored; nodes may have heard it.
func (r Region) PutKill(ctx context.Context, digest wire.Digest, envelope []byte) error {
	return r.stop(ctx, kindKill, digest, envelope)
}

// PutLift is PutKill for a lift.
func (r Region) PutLift(ctx context.Context, digest wire.Digest, envelope []byte) error {
	return r.stop(ctx, kindLift, digest, envelope)
}

// stop tells before it stores: a region without a quorum must not keep a kill
// back.
func (r Region) stop(ctx context.Context, kind string, digest wire.Digest, envelope []byte) error {
	return errors.Join(
		r.Conn.Publish(r.prefix()+"kill", envelope),
		r.create(ctx, r.pol(kind, digest.Hex()), envelope),
	)
}

// PutEnrolment stores an enrolment; ErrConflict when the node has another one of
// this serial.
func (r Region) PutEnrolment(ctx context.Context, node string, serial uint64, envelope []byte) error {
	if err := checkToken("node", node); err != nil {
		return err
	}
	return r.create(ctx, r.pol(kindEnrolment, node, decimal(serial)), envelope)
}

// PutData stores a document about records or regions - an erasure, a hold, the end
// of one, a retirement - whose digest names it.
func (r Region) PutData(ctx context.Context, digest wire.Digest, envelope []byte) error {
	kind := map[string]string{
		bundle.ErasureType: kindErasure, bundle.HoldType: kindHold, bundle.HoldReleaseType: kindHoldRelease, bundle.RetirementType: kindRetirement,
	}[bundle.Type(envelope)]
	if kind == "" {
		return bundle.ErrPayloadType
	}
	return r.create(ctx, r.pol(kind, digest.Hex()), envelope)
}

// PutAccount stores the JWT of the tenant's account, such as one that revokes a
// user, so that the servers of every region take it: serial is its second of issue.
func (r Region) PutAccount(ctx context.Context, serial int64, token string) error {
	return r.create(ctx, r.pol(kindAccount, decimal(uint64(serial))), []byte(token))
}

// Heartbeat tells every node that listens. A nil error promises nothing.
func (r Region) Heartbeat(_ context.Context, envelope []byte) error {
	return r.Conn.Publish(r.prefix()+"hb", envelope)
}

// Alarm tells whoever listens to alarms of that kind. A nil error promises nothing.
func (r Region) Alarm(kind string, msg []byte) error {
	if err := checkToken("alarm", kind); err != nil {
		return err
	}
	return r.Conn.Publish(r.prefix()+"alarm."+kind, msg)
}

// uploads is how many chunks are on their way at a time.
const uploads = 4

// prepare stores what must be there before the release is: its packages, and
// which region leads. Of two regions that published one epoch the release
// decides; that both would lead is no conflict here.
func (r Region) prepare(ctx context.Context, epoch uint64, contents [][]byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var storing sync.WaitGroup
	room := make(chan struct{}, uploads)
	store := func(put func() error) {
		room <- struct{}{}
		storing.Go(func() {
			defer func() { <-room }()
			if err := put(); err != nil {
				cancel(err) // the first one counts
			}
		})
	}
	store(func() error {
		err := r.create(ctx, r.pol(kindLead, decimal(epoch)), []byte(r.Name))
		if errors.Is(err, ErrConflict) {
			return nil
		}
		return err
	})
	for _, content := range contents {
		r.chunks(content, func(subject string, chunk []byte) {
			store(func() error { return r.create(ctx, subject, chunk) })
		})
	}
	storing.Wait()
	return context.Cause(ctx)
}

// chunks cuts the uncompressed content, so that one digest has one form, whoever
// compressed it. The last chunk is shorter than the others.
func (r Region) chunks(content []byte, store func(subject string, data []byte)) {
	digest := wire.Sum(content)
	for i := 0; ; i++ {
		chunk := content[:min(ChunkSize, len(content))]
		content = content[len(chunk):]
		store(r.blob(digest, i), chunk)
		if len(chunk) < ChunkSize {
			return
		}
	}
}

// create stores the first and only message of a subject. The same bytes again
// are no error.
func (r Region) create(ctx context.Context, subject string, data []byte) error {
	_, err := r.policies().Append(ctx, subject, data, 0)
	var taken *bus.FenceError
	if !errors.As(err, &taken) {
		return err
	}
	there, err := eventually(ctx, r.policies(), subject)
	if err != nil {
		return err
	}
	if !bytes.Equal(there.Data, data) {
		return fmt.Errorf("%s: %w", subject, ErrConflict)
	}
	return nil
}

// eventually reads a subject that is known to have a message: the replica that
// answers may be a little behind.
func eventually(ctx context.Context, s *bus.Stream, subject string) (bus.Msg, error) {
	for wait := 2 * time.Millisecond; ; wait *= 2 {
		m, err := s.Last(ctx, subject)
		if !errors.Is(err, bus.ErrNotFound) || wait > patience || sleep(ctx, wait) != nil {
			return m, err
		}
	}
}

// patience bounds the waits of eventually; all of them are twice as long.
const patience = 256 * time.Millisecond

// Copy copies the signed objects and blobs that another region has into this
// one's stream, in their order, until ctx ends. Every object is created at most
// once, so any number of copies may run, both ways. It waits for a region that
// is away and goes on within a second when it is back.
func (r Region) Copy(ctx context.Context, from Region, log *slog.Logger) error {
	next := uint64(1)
	for {
		err := from.policies().Follow(ctx, next, from.prefix()+">", []string{from.stored(from.prefix() + "pol.>")}, poll, func(group []bus.Msg) error {
			for _, m := range group {
				if err := r.copy(ctx, from, m, log); err != nil {
					return err
				}
				next = m.Seq + 1
			}
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("copy policies", "from", from.Name, "to", r.Name, "err", err)
		if err := sleep(ctx, retry); err != nil {
			return err
		}
	}
}

// copy creates one object; a conflict is logged and passed over, because
// waiting for it would keep back everything after it.
func (r Region) copy(ctx context.Context, from Region, m bus.Msg, log *slog.Logger) error {
	name, ok := strings.CutPrefix(m.Subject, from.prefix())
	if !ok {
		return nil
	}
	err := r.create(ctx, r.prefix()+name, m.Data)
	if errors.Is(err, ErrConflict) {
		log.Error("regions hold different objects of one name", "from", from.Name, "to", r.Name, "subject", m.Subject)
		return nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
