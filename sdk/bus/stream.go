package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
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
// be deleted one by one, unless it says so, and a message is at most MaxMsgSize
// bytes long.
type StreamConfig struct {
	Subjects   []string
	MaxMsgSize int
	// Immutable refuses a second message on a subject, whoever sends it.
	Immutable bool
	// LastOnly keeps the last message of each subject.
	LastOnly bool
	// Erasable lets Erase remove messages.
	Erasable bool
	// Announce is a subject's beginning under which the subject of each message
	// is published when the message is stored; "" for none. AnnounceData adds the
	// message's data.
	Announce     string
	AnnounceData bool
	// Replicas is on how many servers the stream is; 0 is 1.
	Replicas int
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

// Ensure creates the stream or brings it to this configuration.
func (s *Stream) Ensure(ctx context.Context, c StreamConfig) error {
	if s.err != nil {
		return s.err
	}
	conf := jetstream.StreamConfig{
		Name: s.name, Subjects: c.Subjects, Storage: jetstream.FileStorage, Replicas: max(c.Replicas, 1),
		MaxMsgSize: int32(c.MaxMsgSize), DenyDelete: true, AllowDirect: true,
	}
	switch {
	case c.Immutable:
		conf.MaxMsgsPerSubject, conf.Discard, conf.DiscardNewPerSubject = 1, jetstream.DiscardNew, true
	case c.LastOnly:
		conf.MaxMsgsPerSubject, conf.DenyDelete = 1, false
	case c.Erasable:
		conf.DenyDelete = false
	}
	if c.Announce != "" {
		conf.RePublish = &jetstream.RePublish{Source: ">", Destination: c.Announce + ".>", HeadersOnly: !c.AnnounceData}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	have, err := s.js.Stream(ctx, s.name)
	switch {
	case err == nil:
		if have.CachedInfo().Config.DenyDelete {
			conf.DenyDelete = true // the server lets nobody take that back
		}
		_, err = s.js.UpdateStream(ctx, conf)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = s.create(ctx, conf)
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.Code == 503 || api.ErrorCode == noPeers) {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err) // a cluster without a leader, or not together yet
	}
	if err != nil {
		return fmt.Errorf("stream %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return nil
}

// create makes the stream. A server that enables an account tries that it can
// write to the folder of its streams and takes that folder away again; a stream
// that is created in this moment finds it gone.
func (s *Stream) create(ctx context.Context, conf jetstream.StreamConfig) (err error) {
	for range createTries {
		var api *jetstream.APIError
		if _, err = s.js.CreateStream(ctx, conf); !errors.As(err, &api) || api.ErrorCode != noStore {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(createPause):
		}
	}
	return err
}

const (
	createTries = 10
	createPause = 50 * time.Millisecond
	noStore     = 10049 // the server's code for a store that cannot be made
)

// wrongLastInFlight is what a replicated stream says when another message on the
// subject is on its way: the sender lost a race that is not decided on disk yet.
const wrongLastInFlight = 10164

// noPeers is the server's code for a cluster that has too few servers at the
// moment.
const noPeers = 10005

// Append stores data as the next message of subject if the subject's last
// message is the one at sequence fence (0: there is none), and returns its
// sequence. A nil error means that this stream has it on disk. Otherwise the
// error is a *FenceError, or the message may or may not have been stored:
// Last tells.
func (s *Stream) Append(ctx context.Context, subject string, data []byte, fence uint64) (uint64, error) {
	seq, err := s.publish(ctx, subject, data, jetstream.WithExpectLastSequencePerSubject(fence))
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == wrongLastInFlight) {
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
	if ack.Stream != s.name || s.domain != "" && ack.Domain != s.domain {
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

// api begins the subjects of the stream's JetStream API.
func (s *Stream) api() string {
	if s.domain == "" {
		return "$JS.API."
	}
	return "$JS." + s.domain + ".API."
}

// get asks the stream directly, without a consumer: nothing has to be built up
// again after a cut. Any replica answers, and may be a little behind.
func (s *Stream) get(ctx context.Context, query map[string]any) (Msg, error) {
	ask, err := json.Marshal(query)
	if err != nil {
		return Msg{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	reply, err := s.conn.nc.RequestWithContext(ctx, s.api()+"DIRECT.GET."+s.name, ask)
	if err != nil {
		return Msg{}, fmt.Errorf("read %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	m, err := stored(reply)
	if err != nil {
		return Msg{}, fmt.Errorf("read %s of %s, %s: %w", s.name, s.domain, ask, err)
	}
	return m, nil
}

// stored reads the answer to a direct get.
func stored(reply *nats.Msg) (Msg, error) {
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return Msg{}, ErrNotFound
	default:
		return Msg{}, fmt.Errorf("status %.40q", status)
	}
	seq, err := strconv.ParseUint(reply.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || seq == 0 {
		return Msg{}, errors.New("no sequence in the reply")
	}
	at, err := time.Parse(time.RFC3339Nano, reply.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return Msg{}, err
	}
	return Msg{Subject: reply.Header.Get(jetstream.SubjectHeader), Data: reply.Data, Seq: seq, Time: at}, nil
}

// Batch returns the messages at or after seq whose subject matches, in order: at
// most n of them, and about so many bytes. None is no error.
func (s *Stream) Batch(ctx context.Context, seq uint64, subject string, n, bytes int) ([]Msg, error) {
	ask, err := json.Marshal(map[string]any{"seq": max(seq, 1), "next_by_subj": subject, "batch": n, "max_bytes": bytes})
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	inbox := s.conn.nc.NewInbox()
	sub, err := s.conn.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	defer sub.Unsubscribe()
	if err := s.conn.nc.PublishRequest(s.api()+"DIRECT.GET."+s.name, inbox, ask); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	var out []Msg
	for len(out) < n {
		reply, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return out, fmt.Errorf("read %s of %s: %w", s.name, s.domain, unreachable(err))
		}
		if status := reply.Header.Get("Status"); status == "204" || status == "404" {
			break // the end of the batch; nothing there
		}
		m, err := stored(reply)
		if err != nil {
			return out, fmt.Errorf("read %s of %s: %w", s.name, s.domain, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// Purge removes the messages whose subject matches.
func (s *Stream) Purge(ctx context.Context, subject string) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if err == nil {
		err = st.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}
	if err != nil {
		return fmt.Errorf("purge %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return nil
}

// PurgeBefore removes the messages whose subject matches and whose sequence is
// below seq.
func (s *Stream) PurgeBefore(ctx context.Context, subject string, seq uint64) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if err == nil {
		err = st.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(seq))
	}
	if err != nil {
		return fmt.Errorf("purge %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return nil
}

// ErrNotErasable means that the stream was made without Erasable.
var ErrNotErasable = errors.New("the stream was made so that its messages cannot be erased")

// Erase removes one message and overwrites its bytes on disk; one that is not
// there is no error. In a stream of several servers the log of their consensus
// keeps its own copy until it is compacted.
func (s *Stream) Erase(ctx context.Context, seq uint64) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if err == nil {
		err = st.SecureDeleteMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			if _, gone := st.GetMsg(ctx, seq); errors.Is(gone, jetstream.ErrMsgNotFound) {
				return nil
			}
			if have, looked := st.Info(ctx); looked == nil && have.Config.DenyDelete {
				err = ErrNotErasable
			}
		}
	}
	if err != nil {
		return fmt.Errorf("erase message %d of %s of %s: %w", seq, s.name, s.domain, unreachable(err))
	}
	return nil
}

// Subjects returns how many messages each subject that matches has.
func (s *Stream) Subjects(ctx context.Context, filter string) (map[string]uint64, error) {
	if s.err != nil {
		return nil, s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if err == nil {
		var info *jetstream.StreamInfo
		if info, err = st.Info(ctx, jetstream.WithSubjectFilter(filter)); err == nil {
			return info.State.Subjects, nil
		}
	}
	return nil, fmt.Errorf("subjects of %s of %s: %w", s.name, s.domain, unreachable(err))
}

// Created is when the stream was made: another time is another stream, whose
// sequences mean nothing to readers of the one before. ErrNotFound when there is
// no such stream.
func (s *Stream) Created(ctx context.Context) (time.Time, error) {
	if s.err != nil {
		return time.Time{}, s.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return time.Time{}, fmt.Errorf("stream %s of %s: %w", s.name, s.domain, ErrNotFound)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("stream %s of %s: %w", s.name, s.domain, unreachable(err))
	}
	return st.CachedInfo().Created, nil
}

// Follow calls f with the messages that match, from sequence seq on, in order
// and for ever: groups of what is there now, at most groupMessages or about
// groupBytes. It polls at the given interval, and at once when an announcement
// on a subject that matches a hint arrives. A stream that is away is waited for; one that was made anew is read from its beginning. Follow ends
// with f's error or the context's.
func (s *Stream) Follow(ctx context.Context, seq uint64, subject string, hints []string, every time.Duration, f func([]Msg) error) error {
	wake, announced := make(chan struct{}, 1), new(atomic.Uint64)
	for _, hint := range hints {
		stop, err := s.conn.Subscribe(ctx, hint, func(m Msg) {
			announced.Store(m.Seq)
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
	var created time.Time
	for {
		if group := s.group(ctx, seq, subject); len(group) > 0 {
			if err := f(group); err != nil {
				return err
			}
			last = group[len(group)-1]
			last.Data, seq = nil, last.Seq+1
			continue
		}
		if s.await(ctx, announced.Load(), seq, subject) {
			continue
		}
		announced.Store(0)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-tick.C:
		case <-check.C:
			if s.anew(ctx, last, subject, &created) {
				seq, last = 1, Msg{}
			}
		}
	}
}

// await waits a bounded time for a message that was announced: the replica that
// answers may not have it yet.
func (s *Stream) await(ctx context.Context, announced, seq uint64, subject string) bool {
	for wait := time.Millisecond; announced >= seq && wait < 100*time.Millisecond; wait *= 2 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		if m, err := s.Next(ctx, seq, subject); err == nil && m.Seq >= seq {
			return true
		}
	}
	return false
}

// anew reports whether the stream is another one than before, whose sequences
// mean nothing here. It asks when the stream was made only if it does not hold
// the last message read from it: a replica may be behind.
func (s *Stream) anew(ctx context.Context, last Msg, subject string, created *time.Time) bool {
	if !created.IsZero() && last.Seq != 0 {
		m, err := s.Next(ctx, last.Seq, subject)
		if err != nil && !errors.Is(err, ErrNotFound) || err == nil && (m.Seq != last.Seq || m.Time.Equal(last.Time)) {
			return false
		}
	}
	at, err := s.Created(ctx)
	if err != nil || at.Equal(*created) {
		return false
	}
	first := created.IsZero()
	*created = at
	return !first || last.Seq != 0 && !at.Before(last.Time)
}

// group reads what is there now, up to its bounds or the first error.
func (s *Stream) group(ctx context.Context, seq uint64, subject string) []Msg {
	m, err := s.Next(ctx, seq, subject)
	if err != nil || m.Seq < seq {
		return nil
	}
	rest, _ := s.Batch(ctx, m.Seq+1, subject, groupMessages-1, groupBytes) // what came before an error is in order
	group := []Msg{m}
	for _, next := range rest {
		if next.Seq <= group[len(group)-1].Seq {
			break
		}
		group = append(group, next)
	}
	return group
}
