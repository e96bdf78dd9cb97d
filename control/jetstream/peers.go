package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Peers is how one hub server's ledger learns from the others: those of its own
// region and those of the regions named. It is a control/ledger.Peers. Only hub
// servers may publish or answer on its subjects; batches prove themselves.
type Peers struct {
	Region
	// Server is this server's name.
	Server string
	// Others are the names of the other regions.
	Others []string
	Log    *slog.Logger
}

// An Archive is what a server gives to others; control/ledger.Ledger is one.
type Archive interface {
	// Has reports whether the archive holds a record.
	Has(node, boot string, seq uint64) bool
	// HasBlobs reports whether it also holds the blobs of the batch with a record.
	HasBlobs(node, boot string, seq uint64) bool
	// Give returns archived batches from the one on that holds record from, at
	// least one, then as many as fit into so many bytes.
	Give(node, boot string, from uint64, bytes int) ([][]byte, error)
}

// Bounds of asking for archived batches.
const (
	giveBytes   = 700 << 10 // of one answer: with one frame more it fits a message
	giveWorkers = 4
	whoWithin   = 500 * time.Millisecond
)

// wanted is a question for archived batches.
type wanted struct {
	Node string `cbor:"1,keyasint"`
	Boot string `cbor:"2,keyasint"`
	From uint64 `cbor:"3,keyasint"`
	// Blobs asks those only who have the blobs too.
	Blobs bool `cbor:"4,keyasint,omitempty"`
}

func (r Region) archived(server, what string) string {
	return r.prefix() + "ledger." + server + "." + what
}

// anyServer stands for a server's name in the question who has a record.
const anyServer = "any"

// Serve answers other servers out of an archive until ctx ends.
func (p Peers) Serve(ctx context.Context, a Archive) error {
	if err := checkToken("server", p.Server); err != nil || p.Server == anyServer {
		return fmt.Errorf("server %q: %w", p.Server, err)
	}
	answers := map[string]func(wanted) *bus.Answer{
		p.archived(anyServer, "who"): func(w wanted) *bus.Answer {
			if !a.Has(w.Node, w.Boot, w.From) || w.Blobs && !a.HasBlobs(w.Node, w.Boot, w.From) {
				return nil // others may
			}
			return &bus.Answer{Data: []byte(p.Server)}
		},
		p.archived(p.Server, "give"): func(w wanted) *bus.Answer {
			frames, err := a.Give(w.Node, w.Boot, w.From, giveBytes)
			if err != nil {
				return failed(err)
			}
			data, err := wire.Marshal(frames)
			if err != nil {
				return failed(err)
			}
			return &bus.Answer{Data: data}
		},
	}
	for subject, answer := range answers {
		stop, err := p.Conn.Serve(ctx, subject, "", giveWorkers, func(q bus.Question) *bus.Answer {
			var w wanted
			if !strings.HasPrefix(q.Reply, "_INBOX.") || wire.Unmarshal(q.Data, &w) != nil {
				return nil
			}
			return answer(w)
		})
		if err != nil {
			return fmt.Errorf("ledger of %s: %w", p.Name, err)
		}
		defer stop()
	}
	<-ctx.Done()
	return ctx.Err()
}

// Fetch calls take with archived batches of a boot that hold record from and
// what follows, of one server after another, until take returns true.
func (p Peers) Fetch(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error {
	return p.fetch(ctx, wanted{Node: node, Boot: boot, From: from}, take)
}

// FetchBlobs is Fetch of those who have the blobs of the batch with record from;
// it goes on to other regions until take returns true.
func (p Peers) FetchBlobs(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error {
	return p.fetch(ctx, wanted{Node: node, Boot: boot, From: from, Blobs: true}, take)
}

func (p Peers) fetch(ctx context.Context, w wanted, take func(frame []byte) (enough bool)) error {
	question, err := wire.Marshal(w)
	if err != nil {
		return err
	}
	var errs []error
	for _, region := range p.all() {
		frames, err := region.ask(ctx, question)
		errs = append(errs, err)
		for _, frame := range frames {
			if take(frame) {
				return nil
			}
		}
		if len(frames) > 0 && !w.Blobs || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// all are the regions, this one first.
func (p Peers) all() []Region {
	out := []Region{p.Region}
	for _, name := range p.Others {
		other := p.Region
		other.Name, other.NoDomain = name, false
		out = append(out, other)
	}
	return out
}

// ask gets what a server of the region has; nothing when nobody says that he has it.
func (r Region) ask(ctx context.Context, question []byte) (frames [][]byte, err error) {
	asking, cancel := context.WithTimeout(ctx, whoWithin)
	who, err := r.Conn.Ask(asking, r.archived(anyServer, "who"), "", question)
	cancel()
	if errors.Is(err, bus.ErrUnreachable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkToken("server", string(who.Data)); err != nil {
		return nil, err
	}
	a, err := r.Conn.Ask(ctx, r.archived(string(who.Data), "give"), "", question)
	if err != nil {
		return nil, err
	}
	if a.Status != "" {
		return nil, fmt.Errorf("server %s: %.40q: %.200q", who.Data, a.Status, a.Data)
	}
	return frames, wire.Unmarshal(a.Data, &frames)
}

// Receipts calls take with the last receipt of each boot in every region, and
// with those that come, until ctx ends. Receipts are not verified.
func (p Peers) Receipts(ctx context.Context, take func(region, node, boot string, receipt []byte)) error {
	var following sync.WaitGroup
	for _, region := range p.all() {
		following.Go(func() {
			for ctx.Err() == nil {
				err := region.followReceipts(ctx, take)
				if ctx.Err() == nil {
					p.Log.Debug("receipts", "of", region.Name, "err", err)
					_ = sleep(ctx, retry)
				}
			}
		})
	}
	following.Wait()
	return ctx.Err()
}

func (r Region) followReceipts(ctx context.Context, take func(region, node, boot string, receipt []byte)) error {
	subject := r.prefix() + "rcpt.>"
	return r.receipts().Follow(ctx, 1, subject, []string{r.stored(subject)}, poll, func(group []bus.Msg) error {
		for _, m := range group {
			if node, boot, ok := parseBoot(m.Subject, "rcpt"); ok {
				take(r.Name, node, boot, m.Data)
			}
		}
		return nil
	})
}
