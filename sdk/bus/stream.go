package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// checkAnew is how often Follow looks whether its stream is still the same one.
const checkAnew = 2 * time.Second

// Bounds of one group that Follow gives out.
const (
	groupMessages = 64
	groupBytes    = 8 << 20
)

// A Stream is a named stream of one JetStream domain. Its methods work from
// anywhere in the tenant's account, across leaf connections.
type Stream struct {
	conn         *Conn
	js           jetstream.JetStream
	err          error
	domain, name string
}

// StreamConfig describes a file stream without an age limit. Messages cannot
// be deleted one by one, and a message is at most MaxMsgSize bytes long.
type StreamConfig struct {
	Subjects   []string
	MaxMsgSize int
	// Immutable refuses a second message on a subject, whoever sends it.
	Immutable bool
	// LastOnly keeps the last message of each subject.
	LastOnly bool
	// Announce is a subject's beginning under which the subject of each message
	// is published, without its data, when the message is stored; "" for none.
	Announce string
}

// A Source is a stream of another domain that one of ours copies. It is read
// through a durable consumer, which Feed makes there; AddSource comes after it,
// because a source without its consumer is not tried again for ten seconds.
type Source struct {
	Domain, Stream string
	// Consumer is the durable's name, Deliver the subject it sends to.
	Consumer, Deliver string
}

// FenceError says that a subject's last message was not the expected one: the
// sender lost a race, or has sent this before.
type FenceError struct {
	Subject string
	// Fence is the sequence that the sender expected; 0 means no message.
	Fence uint64
}

func (e *FenceError) Error() string {
	return fmt.Sprintf("%s: last message is not at sequence %d", e.Subject, e.Fence)
}

// Ensure creates the stream or brings it to this configuration. Its sources
// stay as they are.
func (s *Stream) Ensure(ctx context.Context, c StreamConfig) error {
	if s.err != nil {
		return s.err
	}
	conf := jetstream.StreamConfig{
		Name: s.name, Subjects: c.Subjects, Storage: jetstream.FileStorage, Replicas: 1,
		MaxMsgSize: int32(c.MaxMsgSize), DenyDelete: true, AllowDirect: true,
	}
	switch {
	case c.Immutable:
		conf.MaxMsgsPerSubject, conf.Discard, conf.DiscardNewPerSubject = 1, jetstream.DiscardNew, true
	case c.LastOnly:
		conf.MaxMsgsPerSubject, conf.DenyDelete = 1, false
	}
	if c.Announce != "" {
		conf.RePublish = &jetstream.RePublish{Source: ">", Destination: c.Announce + ".>", HeadersOnly: true}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	there, err := s.js.Stream(ctx, s.name)
	switch {
	case err == nil:
		conf.Sources = there.CachedInfo().Config.Sources
		_, err = s.js.UpdateStream(ctx, conf)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = s.js.CreateStream(ctx, conf)
	}
	if err != nil {
		return fmt.Errorf("stream %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return nil
}

// AddSource makes the stream copy src, unless it does.
func (s *Stream) AddSource(ctx context.Context, src Source) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	there, err := s.js.Stream(ctx, s.name)
	if err != nil {
		return fmt.Errorf("stream %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	conf := there.CachedInfo().Config
	prefix := "$JS." + src.Domain + ".API"
	for _, have := range conf.Sources {
		if have.Name == src.Stream && have.External != nil && have.External.APIPrefix == prefix {
			return nil
		}
	}
	conf.Sources = append(conf.Sources, &jetstream.StreamSource{
		Name:     src.Stream,
		External: &jetstream.ExternalStream{APIPrefix: prefix},
		Consumer: &jetstream.StreamConsumerSource{Name: src.Consumer, DeliverSubject: src.Deliver},
	})
	if _, err := s.js.UpdateStream(ctx, conf); err != nil {
		return fmt.Errorf("source %s of %s: %w", src.Stream, src.Domain, unreachable(err))
	}
	return nil
}

// Feed makes the durable consumer on s through which src is read, unless it is
// there. It acknowledges by flow control, in order and without loss (ADR-60).
func (s *Stream) Feed(ctx context.Context, src Source) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := s.js.CreateOrUpdatePushConsumer(ctx, s.name, jetstream.ConsumerConfig{
		Durable: src.Consumer, Name: src.Consumer, DeliverSubject: src.Deliver,
		AckPolicy: jetstream.AckFlowControlPolicy, MaxAckPending: 1000, MaxDeliver: -1,
		FlowControl: true, IdleHeartbeat: time.Second,
		DeliverPolicy: jetstream.DeliverAllPolicy, ReplayPolicy: jetstream.ReplayInstantPolicy,
	})
	if err != nil {
		return fmt.Errorf("consumer %s on %s of %s: %w", src.Consumer, s.name, s.domain, unreachable(err))
	}
	return nil
}

// Append stores data as the next message of subject if the subject's last
// message is the one at sequence fence (0: there is none), and returns its
// sequence. A nil error means that this stream has it on disk. Otherwise the
// error is a *FenceError, or the message may or may not have been stored:
// Last tells.
func (s *Stream) Append(ctx context.Context, subject string, data []byte, fence uint64) (uint64, error) {
	seq, err := s.publish(ctx, subject, data, jetstream.WithExpectLastSequencePerSubject(fence))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return 0, &FenceError{Subject: subject, Fence: fence}
	}
	return seq, err
}

// Put stores data as the next message of subject, whatever is there. A nil
// error means that this stream has it on disk.
func (s *Stream) Put(ctx context.Context, subject string, data []byte) error {
	_, err := s.publish(ctx, subject, data)
	return err
}

func (s *Stream) publish(ctx context.Context, subject string, data []byte, opts ...jetstream.PublishOpt) (uint64, error) {
	if s.err != nil {
		return 0, s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data}, append(opts, jetstream.WithRetryAttempts(0))...)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", subject, unreachable(err))
	}
	if ack.Stream != s.name || ack.Domain != s.domain {
		return 0, fmt.Errorf("append to %s: acknowledged by stream %s of %s, not %s of %s", subject, ack.Stream, ack.Domain, s.name, s.domain)
	}
	return ack.Sequence, nil
}

// Last returns the last message of subject, or ErrNotFound.
func (s *Stream) Last(ctx context.Context, subject string) (Msg, error) {
	return s.get(ctx, map[string]any{"last_by_subj": subject})
}

// Next returns the first message at or after seq whose subject matches, or
// ErrNotFound.
func (s *Stream) Next(ctx context.Context, seq uint64, subject string) (Msg, error) {
	return s.get(ctx, map[string]any{"seq": max(seq, 1), "next_by_subj": subject})
}

// get asks the stream directly, without a consumer: nothing has to be built up
// again after a cut.
func (s *Stream) get(ctx context.Context, query map[string]any) (Msg, error) {
	ask, err := json.Marshal(query)
	if err != nil {
		return Msg{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	reply, err := s.conn.nc.RequestWithContext(ctx, "$JS."+s.domain+".API.DIRECT.GET."+s.name, ask)
	if err != nil {
		return Msg{}, fmt.Errorf("read %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return Msg{}, fmt.Errorf("read %s of %s, %s: %w", s.name, s.domain, ask, ErrNotFound)
	default:
		return Msg{}, fmt.Errorf("read %s of %s: status %.40q", s.name, s.domain, status)
	}
	seq, err := strconv.ParseUint(reply.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || seq == 0 {
		return Msg{}, fmt.Errorf("read %s of %s: no sequence in the reply", s.name, s.domain)
	}
	at, err := time.Parse(time.RFC3339Nano, reply.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return Msg{}, fmt.Errorf("read %s of %s: %w", s.name, s.domain, err)
	}
	return Msg{Subject: reply.Header.Get(jetstream.SubjectHeader), Data: reply.Data, Seq: seq, Time: at}, nil
}

// Created is when the stream was made: another time is another stream, whose
// sequences mean nothing to readers of the one before.
func (s *Stream) Created(ctx context.Context) (time.Time, error) {
	if s.err != nil {
		return time.Time{}, s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if err != nil {
		return time.Time{}, fmt.Errorf("stream %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return st.CachedInfo().Created, nil
}

// Follow calls f with the messages that match, from sequence seq on, in order
// and for ever: groups of what is there now, at most groupMessages or about
// groupBytes. It polls at the given interval, and at once when somebody
// publishes on a subject that matches hint ("" for none). A stream that is away
// is waited for; one that was made anew is read from its beginning. Follow ends
// with f's error or the context's.
func (s *Stream) Follow(ctx context.Context, seq uint64, subject, hint string, every time.Duration, f func([]Msg) error) error {
	wake := make(chan struct{}, 1)
	if hint != "" {
		stop, err := s.conn.Subscribe(ctx, hint, func(Msg) {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		if err != nil {
			return err
		}
		defer stop()
	}
	tick, check := time.NewTicker(every), time.NewTicker(checkAnew)
	defer tick.Stop()
	defer check.Stop()
	var last Msg
	for {
		if group := s.group(ctx, seq, subject); len(group) > 0 {
			if err := f(group); err != nil {
				return err
			}
			last = group[len(group)-1]
			last.Data, seq = nil, last.Seq+1
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-tick.C:
		case <-check.C:
			if s.anew(ctx, last, subject) {
				seq, last = 1, Msg{}
			}
		}
	}
}

// anew reports whether the stream no longer holds the last message read from
// it, nor one after it: it is another stream, whose sequences mean nothing here.
func (s *Stream) anew(ctx context.Context, last Msg, subject string) bool {
	if last.Seq == 0 {
		return false
	}
	m, err := s.Next(ctx, last.Seq, subject)
	return errors.Is(err, ErrNotFound) || err == nil && m.Seq == last.Seq && !m.Time.Equal(last.Time)
}

// group reads what is there now, up to its bounds or the first error.
func (s *Stream) group(ctx context.Context, seq uint64, subject string) (group []Msg) {
	for size := 0; len(group) < groupMessages && size < groupBytes; {
		m, err := s.Next(ctx, seq, subject)
		if err != nil || m.Seq < seq {
			break
		}
		group, size, seq = append(group, m), size+len(m.Data), m.Seq+1
	}
	return group
}
