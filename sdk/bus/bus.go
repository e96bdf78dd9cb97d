// Package bus is Holdfast's use of NATS: a connection that never gives up,
// subjects, and streams that are appended to under a fence and read in order.
// It is the only importer of nats.go.
//
// NATS is transport. What arrives here is neither authentic nor fresh until
// its reader has verified it.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Timeout bounds every request whose context has no earlier deadline.
const Timeout = 2 * time.Second

const (
	connectWait   = 5 * time.Second
	reconnectWait = 250 * time.Millisecond
	pingInterval  = 2 * time.Second
)

var (
	// ErrUnreachable means that nobody listens where the request went: the
	// stream's server is away or its link is cut.
	ErrUnreachable = errors.New("unreachable")
	// ErrNotFound means that the stream holds no such message.
	ErrNotFound = errors.New("no such message")
)

// Config of a connection.
type Config struct {
	// Server is an embedded server in this process; URL is used without one.
	Server interface{ InProcessConn() (net.Conn, error) }
	// URL of a server, such as nats://127.0.0.1:4222.
	URL            string
	User, Password string
	// Name of the connection in the server's monitoring.
	Name string
	Log  *slog.Logger
}

// A Conn is a connection to one server. It reconnects for ever.
type Conn struct {
	nc *nats.Conn
}

// A Msg is a received message. Time and Seq are those of the stream that holds
// it, and zero for a message that came from no stream.
type Msg struct {
	Subject string
	Data    []byte
	Seq     uint64
	Time    time.Time
}

// Connect returns when the connection is up.
func Connect(ctx context.Context, c Config) (*Conn, error) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.UserInfo(c.User, c.Password),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(-1), // publishing while away is an error, never a surprise later
		nats.Timeout(connectWait),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			log.Warn("bus", "conn", c.Name, "subject", subjectOf(s), "err", err)
		}),
	}
	if c.Server != nil {
		opts = append(opts, nats.InProcessServer(c.Server))
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(c.URL, opts...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("connect %s: %w", c.Name, r.err)
		}
		return &Conn{nc: r.nc}, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// Close ends the connection and its subscriptions.
func (c *Conn) Close() { c.nc.Close() }

// Publish sends data to whoever subscribes to subject now. A nil error
// promises nothing about delivery.
func (c *Conn) Publish(subject string, data []byte) error { return c.nc.Publish(subject, data) }

// Subscribe calls f with each message for subject, one at a time, until stop
// is called. A reader that is too slow loses messages, which is logged. It
// returns when the server next to us knows of the subscription.
func (c *Conn) Subscribe(ctx context.Context, subject string, f func(Msg)) (stop func(), err error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		f(Msg{Subject: m.Subject, Data: m.Data})
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		sub.Unsubscribe()
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	return sync.OnceFunc(func() { sub.Unsubscribe() }), nil
}

// Stream names a stream in a JetStream domain; nothing is asked of the server.
func (c *Conn) Stream(domain, name string) *Stream {
	// New fails on an empty domain only, and so will every request then.
	js, err := jetstream.NewWithDomain(c.nc, domain)
	return &Stream{conn: c, js: js, err: err, domain: domain, name: name}
}

// bounded gives ctx the package's time limit, unless it has an earlier one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, Timeout)
}

func subjectOf(s *nats.Subscription) string {
	if s == nil {
		return ""
	}
	return s.Subject
}

// unreachable turns the client's words for an absent peer into ours.
func unreachable(err error) error {
	for _, away := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, context.DeadlineExceeded,
	} {
		if errors.Is(err, away) {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	return err
}
