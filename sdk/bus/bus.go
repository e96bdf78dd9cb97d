// Package bus is Holdfast's use of NATS: a connection that never gives up,
// subjects, and streams that are appended to under a fence and read in order.
// It is the only importer of nats.go.
//
// NATS is transport. What arrives here is neither authentic nor fresh until
// its reader has verified it.
package bus

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// Timeout bounds every request whose context has no earlier deadline.
const Timeout = 2 * time.Second

const (
	connectWait   = 5 * time.Second
	reconnectWait = 250 * time.Millisecond
	pingInterval  = 2 * time.Second
)

// Bounds of what waits for a slow reader.
const (
	pendingMsgs  = 8192
	pendingBytes = 64 << 20
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
	// Server is an embedded server in this process; URLs are used without one.
	Server interface{ InProcessConn() (net.Conn, error) }
	// URLs of servers, such as nats://127.0.0.1:4222, the preferred one first.
	// URL is one more.
	URLs []string
	URL  string
	// Creds is the path of a credentials file. User and Password are for servers
	// without an operator. An embedded server that has a user of its own for this
	// process needs neither.
	Creds          string
	User, Password string
	// CA is the path of the certificates that servers are verified with; "" is
	// the system's. Cert and Key are paths of a certificate of our own, if the
	// servers ask for one.
	CA, Cert, Key string
	// Inbox begins the subjects to which answers come; "" is the one that the
	// credentials, or the embedded server, allow.
	Inbox string
	// Name of the connection in the server's monitoring.
	Name string
	// Changed, if set, is called when the connection is lost (false) and when it is
	// back (true). It must not block.
	Changed func(up bool)
	Log     *slog.Logger
}

// A Conn is a connection to one server. It reconnects for ever.
type Conn struct {
	nc    *nats.Conn
	peers sync.Map // of Peer
}

// A Msg is a received message. Time and Seq are those of the stream that holds
// it, and zero for a message that came from no stream; an announcement has the
// sequence, not the time.
type Msg struct {
	Subject string
	Data    []byte
	Seq     uint64
	Time    time.Time
}

// Connect returns when the connection is up.
func Connect(ctx context.Context, c Config) (*Conn, error) {
	opts, err := c.options()
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", c.Name, err)
	}
	urls := slices.Clone(c.URLs)
	if c.URL != "" {
		urls = append(urls, c.URL)
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(strings.Join(urls, ","), opts...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("connect %s: %w", c.Name, unreachable(r.err))
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

func (c *Config) options() ([]nats.Option, error) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	changed := c.Changed
	if changed == nil {
		changed = func(bool) {}
	}
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.MaxReconnects(-1),
		nats.DontRandomize(),
		nats.IgnoreAuthErrorAbort(), // credentials may be renewed, and a user let in again
		nats.ReconnectWait(reconnectWait),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(-1), // publishing while away is an error, never a surprise later
		nats.Timeout(connectWait),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { changed(false) }),
		nats.ReconnectHandler(func(*nats.Conn) { changed(true) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			log.Warn("bus", "conn", c.Name, "subject", subjectOf(s), "err", err)
		}),
	}
	if c.Server != nil {
		opts = append(opts, nats.InProcessServer(c.Server))
	}
	tls, err := c.tls()
	if err != nil {
		return nil, err
	}
	if tls != nil {
		opts = append(opts, nats.Secure(tls))
	}
	user, err := c.user()
	return append(opts, user...), err
}

// user is how the connection says who it is, and where its answers come.
func (c *Config) user() ([]nats.Option, error) {
	inbox := c.Inbox
	own, ok := c.Server.(interface {
		OwnUser() (name, password, inbox string)
	})
	login := nats.UserInfo(c.User, c.Password)
	switch {
	case c.Creds != "":
		file, err := os.ReadFile(c.Creds)
		if err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
		allowed, err := auth.Inbox(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Creds, err)
		}
		inbox, login = cmp.Or(inbox, allowed), nats.UserCredentials(c.Creds)
	case c.User == "" && ok:
		name, password, allowed := own.OwnUser()
		inbox, login = cmp.Or(inbox, allowed), nats.UserInfo(name, password)
	}
	if inbox == "" {
		return []nats.Option{login}, nil
	}
	return []nats.Option{login, nats.CustomInboxPrefix(inbox)}, nil
}

func (c *Config) tls() (*tls.Config, error) {
	if c.CA == "" && c.Cert == "" || c.Server != nil {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("CA %s: no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", c.Cert, err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
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
	return c.subscribe(ctx, subject, "", func(m *nats.Msg) {
		msg := Msg{Subject: m.Subject, Data: m.Data}
		if seq := m.Header.Get(jetstream.SequenceHeader); seq != "" {
			msg.Seq, _ = strconv.ParseUint(seq, 10, 64) // what is no number is no announcement
		}
		f(msg)
	})
}

func (c *Conn) subscribe(ctx context.Context, subject, queue string, f nats.MsgHandler) (stop func(), err error) {
	sub, err := c.nc.QueueSubscribe(subject, queue, f)
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(pendingMsgs, pendingBytes); err != nil {
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

// Stream names a stream in a JetStream domain, "" for a server without one;
// nothing is asked of the server.
func (c *Conn) Stream(domain, name string) *Stream {
	s := &Stream{conn: c, domain: domain, name: name}
	if domain == "" {
		s.js, s.err = jetstream.New(c.nc)
	} else {
		s.js, s.err = jetstream.NewWithDomain(c.nc, domain)
	}
	return s
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
		nats.ErrReconnectBufExceeded, nats.ErrNoServers, nats.ErrConnectionReconnecting, jetstream.ErrNoStreamResponse, context.DeadlineExceeded,
	} {
		if errors.Is(err, away) {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	return err
}
