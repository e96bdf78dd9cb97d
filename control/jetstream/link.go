package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A link asks a region's gate in the name of a node or a reader.
type link struct {
	conn   *bus.Conn
	door   string // begins every subject
	name   string
	region string
}

func up(conn *bus.Conn, tenant, region, node string) link {
	return link{conn, prefix(tenant, region) + "up.", node, region}
}

// ask returns the answer of the region's gate, or what it says as an error of
// this package and of bus. It keeps to one gate while that answers.
func (l link) ask(ctx context.Context, what, number string, data []byte) (bus.Answer, error) {
	for again := false; ; again = true {
		gate, err := l.gate(ctx)
		if err != nil {
			return bus.Answer{}, err
		}
		a, err := l.conn.Ask(ctx, l.door+gate+"."+l.name+"."+what, number, data)
		if err == nil {
			return l.answer(a, what, number)
		}
		l.conn.SetPeer(l.door, "")
		if again || !errors.Is(err, bus.ErrNobody) { // only what has reached nobody may be asked again
			return bus.Answer{}, err
		}
	}
}

// gate is the name of a gate: the one that answered last, or first now.
func (l link) gate(ctx context.Context) (string, error) {
	if gate := l.conn.Peer(l.door); gate != "" {
		return gate, nil
	}
	a, err := l.conn.Ask(ctx, l.door+anyGate+"."+l.name+"."+askWho, "", nil)
	if err != nil {
		return "", err
	}
	if a.Status == statusBusy {
		return "", fmt.Errorf("region %s: %w", l.region, ErrBusy)
	}
	gate := string(a.Data)
	if err := checkToken("gate", gate); err != nil || a.Status != "" {
		return "", fmt.Errorf("region %s: no name of a gate: %.40q, %w", l.region, a.Status, err)
	}
	l.conn.SetPeer(l.door, gate)
	return gate, nil
}

// errQuestion is what a gate says of a question that it does not know.
var errQuestion = errors.New("no question of this gate")

func (l link) answer(a bus.Answer, what, number string) (bus.Answer, error) {
	var err error
	switch a.Status {
	case "":
		return a, nil
	case statusNone:
		err = bus.ErrNotFound
	case statusBusy:
		err = ErrBusy
	case statusFence:
		fence, _ := strconv.ParseUint(number, 10, 64) // as we sent it
		return bus.Answer{}, &bus.FenceError{Subject: l.region + " " + what, Fence: fence}
	case statusAway:
		err = fmt.Errorf("%w: %.200q", bus.ErrUnreachable, a.Data)
	case statusBad:
		err = fmt.Errorf("%w: %.200q", errQuestion, a.Data)
	default:
		err = fmt.Errorf("%.40q: %.200q", a.Status, a.Data)
	}
	return bus.Answer{}, fmt.Errorf("region %s, %s: %w", l.region, what, err)
}

// list asks for several messages after a cursor and returns the next cursor.
func (l link) list(ctx context.Context, what, cursor string) ([]item, string, error) {
	a, err := l.ask(ctx, what, cursor, nil)
	if err != nil {
		return nil, cursor, err
	}
	var items []item
	if err := wire.Unmarshal(a.Data, &items); err != nil {
		return nil, cursor, fmt.Errorf("region %s, %s: %w", l.region, what, err)
	}
	return items, a.Number, nil
}

// follow calls f with the messages after a cursor, "" for all, and with those
// that come, until ctx ends or f returns an error. It asks at intervals, and at
// once when woken.
func (l link) follow(ctx context.Context, what string, wake <-chan struct{}, f func([]item) error) error {
	cursor := ""
	for {
		items, next, err := l.list(ctx, what, cursor)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(items) > 0 {
			if err := f(items); err != nil {
				return err
			}
		}
		more := next != cursor && len(items) > 0
		cursor = next
		if more {
			continue
		}
		wait := askEvery
		if err != nil {
			wait = retry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-time.After(wait):
		}
	}
}

// askEvery is how often an edge asks for what it may have missed: everything
// new also comes by itself.
const askEvery = 2 * time.Second

// Reading a chunk is tried so often, each time for so long: a question that is
// lost with its gate must not cost a release seconds.
const (
	readTries  = 5
	readWithin = 4 * patience // a gate waits twice as long for a replica that is behind
)

// read asks for what does not change by being asked for, again when nobody answers.
func (l link) read(ctx context.Context, what string) (a bus.Answer, err error) {
	for range readTries {
		within, cancel := context.WithTimeout(ctx, readWithin)
		a, err = l.ask(within, what, "", nil)
		cancel()
		if !errors.Is(err, bus.ErrUnreachable) || ctx.Err() != nil {
			break
		}
	}
	return a, err
}

// fetch assembles a package's uncompressed content from its chunks, at most max
// bytes, and checks its digest.
func (l link) fetch(ctx context.Context, digest wire.Digest, max uint64) ([]byte, error) {
	var content []byte
	for i := 0; ; i++ {
		a, err := l.read(ctx, askBlob+"."+digest.Hex()+"."+strconv.Itoa(i))
		if errors.Is(err, bus.ErrNotFound) {
			return nil, fmt.Errorf("package %s, chunk %d of region %s: %w", digest, i, l.region, ErrNoPackage)
		}
		if err != nil {
			return nil, err
		}
		if len(a.Data) > ChunkSize || uint64(len(content)+len(a.Data)) > max {
			return nil, fmt.Errorf("package %s of region %s: beyond %d bytes: %w", digest, l.region, max, wire.ErrTooLarge)
		}
		content = append(content, a.Data...)
		if len(a.Data) < ChunkSize {
			break
		}
	}
	if wire.Sum(content) != digest {
		return nil, fmt.Errorf("package %s of region %s: the content has another digest", digest, l.region)
	}
	return content, nil
}
