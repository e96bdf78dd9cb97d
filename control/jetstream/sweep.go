package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Sweeper removes from the region's stream the batches that most of its
// servers have archived, but for the last one of each boot: that one is the
// fence. The servers that have not yet get them from those that have; waiting
// for all would let one that is dead fill the disks of the others.
type Sweeper struct {
	Region
	// Server is this server's name; Servers is how many the region has.
	Server  string
	Servers int
	// Kept is up to which position of the stream this server has archived
	// everything, but for the boots that it misses something of.
	Kept func() (position string, but []string)
	// Leading reports whether this server sweeps.
	Leading func() bool
	// Every is the time between two sweeps; 0 is ten seconds.
	Every time.Duration
	Log   *slog.Logger

	mu    sync.Mutex      // guards what follows
	heard map[string]kept // what each server said last
}

// kept is what a server says of its archive.
type kept struct {
	Server   string   `cbor:"1,keyasint"`
	Position string   `cbor:"2,keyasint"`
	But      []string `cbor:"3,keyasint,omitempty"` // NODE.BOOT
	at       time.Time
}

// Bounds of what servers say.
const (
	sweepEvery = 10 * time.Second
	keptLives  = 3 // what a server said counts for so many sweeps
	maxBut     = 4096
	maxServers = 16
)

// Run says what this server has archived, and sweeps while it leads, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	every := s.Every
	if every == 0 {
		every = sweepEvery
	}
	subject := s.prefix() + "ledger.kept"
	stop, err := s.Conn.Subscribe(ctx, subject, s.hear)
	if err != nil {
		return err
	}
	defer stop()
	marks := map[string]uint64{}
	for sleep(ctx, every) == nil {
		if err := s.say(subject); err != nil {
			s.Log.Debug("sweep", "err", err)
		}
		if !s.Leading() {
			clear(marks)
			continue
		}
		if err := s.sweep(ctx, every, marks); err != nil && ctx.Err() == nil {
			s.Log.Warn("stream of records not swept", "err", err)
		}
	}
	return ctx.Err()
}

func (s *Sweeper) say(subject string) error {
	k := kept{Server: s.Server}
	k.Position, k.But = s.Kept()
	if len(k.But) > maxBut {
		return errors.New("too many boots miss records; nothing is said to be archived")
	}
	msg, err := wire.Marshal(k)
	if err != nil {
		return err
	}
	return s.Conn.Publish(subject, msg)
}

// hear notes what a server says, this one's too.
func (s *Sweeper) hear(m bus.Msg) {
	var k kept
	if err := wire.Unmarshal(m.Data, &k); err != nil || checkToken("server", k.Server) != nil || len(k.But) > maxBut {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == nil {
		s.heard = map[string]kept{}
	}
	if _, known := s.heard[k.Server]; !known && len(s.heard) >= maxServers {
		return
	}
	k.at = time.Now()
	s.heard[k.Server] = k
}

// sweep removes, of each boot, what is before the message that was its last one
// at the sweep before, if most servers are past that.
func (s *Sweeper) sweep(ctx context.Context, every time.Duration, marks map[string]uint64) error {
	created, err := s.records().Created(ctx)
	if err != nil {
		return err
	}
	subjects, err := s.records().Subjects(ctx, s.prefix()+"rec.>")
	if err != nil {
		return err
	}
	life := decimal(uint64(created.UnixNano()))
	for subject, mark := range marks {
		if subjects[subject] < 2 {
			delete(marks, subject)
			continue
		}
		if s.safe(life, strings.TrimPrefix(subject, s.prefix()+"rec."), mark, every) {
			if err := s.records().PurgeBefore(ctx, subject, mark); err != nil {
				return err
			}
			delete(marks, subject)
		}
	}
	for subject, n := range subjects {
		if _, marked := marks[subject]; n < 2 || marked {
			continue
		}
		m, err := s.records().Last(ctx, subject)
		if err != nil {
			return err
		}
		marks[subject] = m.Seq
	}
	return nil
}

// safe reports whether most servers have archived a boot's batches up to a
// sequence of this life of the stream, the server that sweeps among them.
func (s *Sweeper) safe(life, boot string, seq uint64, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, self := 0, false
	for name, k := range s.heard {
		at, reached, _ := strings.Cut(k.Position, " ")
		n, ok := number(reached)
		if !ok || at != life || n < seq || time.Since(k.at) > keptLives*every || slices.Contains(k.But, boot) {
			continue
		}
		have++
		self = self || name == s.Server
	}
	return self && have > s.Servers/2
}
