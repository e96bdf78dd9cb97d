// Package embed runs NATS inside the process: a hub server, one of those that
// hold a region's streams, or an edge's leaf node. It is the only importer of
// nats-server.
//
// With a Trust users are those of the operator, by their credentials. A Login is
// for one tenant on one machine: everybody shares it.
package embed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/sparing"
)

// MaxPayload bounds one message, in bytes.
const MaxPayload = auth.MaxPayload

// Bounds of everything that waits.
const (
	readyWithin    = 10 * time.Second
	shutdownWithin = 15 * time.Second
	pingEvery      = "2s"
	pingsMissed    = 2
	reconnectAt    = "250ms"
	connectLimit   = "2s"
	maxMemory      = 64 << 20
	// maxFile is no bound. Each account has one; the server would otherwise add them
	// up and refuse whole accounts where they are more than 3/4 of the free disk.
	maxFile = 1 << 50
)

// A Login is the user of a tenant's account on every hub and edge of it.
type Login struct {
	Tenant, User, Password string
}

// HubConfig describes one server of a region.
type HubConfig struct {
	// Region is the name of the region, of its cluster and of its JetStream domain.
	Region string
	// Name of the server, unlike any other's; "" is the region's name, for a
	// region of one server.
	Name string
	// Dir holds the streams and, with a Trust, the accounts. Every message in it
	// is fsynced before its acknowledgement.
	Dir string
	// Trust says whose users come in; nil for a Login.
	Trust *auth.Trust
	Login Login
	// TLS is for clients, leafs, routes and browsers: version 1.3. The server's
	// certificate must be good for both ends of a route. Nil for none.
	TLS *auth.TLSFiles
	// Host to listen on; "" is 127.0.0.1.
	Host string
	// Ports to listen on; 0 takes a free one.
	ClientPort, LeafPort, WebsocketPort int
	// Websocket opens a listener for browsers.
	Websocket bool
	// Routes are the cluster addresses (host:port) of the region's servers, this
	// one's among them or not; none for a region of one server. ClusterPort is
	// then this server's, and ClusterSecret the password that the region's
	// servers share.
	Routes        []string
	ClusterPort   int
	ClusterSecret string
	// Join is the leaf address (host:port) of the hub that this one is a leaf of;
	// "" for the centre of the star. Links is the same with a Trust.
	Join  string
	Links []Link
	Log   *slog.Logger
}

// A Link joins one tenant's account of this server to that of another region.
// Every server of the region has the same links. Only one of two regions has
// them: two would make a loop.
type Link struct {
	Tenant string
	// Creds is the path of the link's credentials file.
	Creds string
	// URLs are leaf addresses (host:port) of the other region's servers.
	URLs []string
}

// LeafConfig describes an edge's server. It has no streams.
type LeafConfig struct {
	// Node is the name of the edge.
	Node string
	// Tenant is whose edge it is; "" is the Login's.
	Tenant string
	// Creds is the path of the edge's credentials file; "" for a Login.
	Creds string
	Login Login
	// TLS verifies the hubs; nil for none.
	TLS *auth.TLSFiles
	// Host to listen on for the workloads beside the edge; "" is 127.0.0.1.
	Host string
	// ClientPort to listen on; 0 takes a free one.
	ClientPort int
	// ListenTLS is for the workloads' connections; nil for none.
	ListenTLS *auth.TLSFiles
	// Workloads are the users of this server; each may ask and tail. The node
	// itself connects by Conn.
	Workloads []User
	// Hubs are leaf addresses (host:port), the preferred ones first. The edge
	// is connected to one of them at a time.
	Hubs []string
	// RebuildAfter is how long the link may be down while a hub answers before
	// the server is built anew; 0 is 15 s. It doubles each time, up to 16 times.
	RebuildAfter time.Duration
	Log          *slog.Logger
}

// A User of an edge's own server.
type User struct {
	Name, Password string
}

// A Server is a running NATS server.
type Server struct {
	current  atomic.Pointer[server.Server]
	trust    *auth.Trust
	accounts []string
	secret   string // of the process's own user, "" on a hub
	node     string
	leaf     string
	log      *slog.Logger
	rebuilt  atomic.Uint64

	stopping context.CancelFunc // ends the watchdog
	watching sync.WaitGroup
}

// own is the user of the process itself on an edge's server.
const own = "node"

// Hub starts a region's server and returns when it listens. Of a cluster, the
// streams can be used when most servers run.
func Hub(ctx context.Context, c HubConfig) (*Server, error) {
	s := &Server{trust: c.Trust, log: logger(c.Log)}
	conf, err := c.config()
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", c.name(), err)
	}
	s.accounts = []string{c.Login.Tenant}
	if c.Trust != nil {
		tenants, err := c.Trust.Tenants()
		if err != nil {
			return nil, fmt.Errorf("hub %s: %w", c.name(), err)
		}
		s.accounts = nil
		for _, key := range tenants {
			s.accounts = append(s.accounts, key)
		}
	}
	n, opts, err := s.start(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", c.name(), err)
	}
	s.leaf = net.JoinHostPort(opts.LeafNode.Host, strconv.Itoa(opts.LeafNode.Port))
	s.current.Store(n)
	if !n.JetStreamEnabled() {
		s.Shutdown()
		return nil, fmt.Errorf("hub %s: JetStream is not enabled; the log says why", c.name())
	}
	return s, nil
}

// Leaf starts an edge's server and returns when it listens. It does not wait
// for a hub: an edge works alone.
func Leaf(ctx context.Context, c LeafConfig) (*Server, error) {
	s := &Server{secret: rand.Text(), node: c.Node, accounts: []string{c.tenant()}, log: logger(c.Log)}
	n, _, err := s.start(ctx, c.config(s.secret))
	if err != nil {
		return nil, fmt.Errorf("leaf %s: %w", c.Node, err)
	}
	s.current.Store(n)
	if addr, ok := n.Addr().(*net.TCPAddr); ok {
		c.ClientPort = addr.Port // a rebuilt server answers where this one did
	}
	if len(c.Hubs) > 0 {
		watch, cancel := context.WithCancel(context.Background())
		s.stopping = cancel
		s.watching.Go(func() { s.watch(watch, c) })
	}
	return s, nil
}

// ClientURL is where clients connect, without the login.
func (s *Server) ClientURL() string { return s.current.Load().ClientURL() }

// WebsocketURL is where browsers connect; "" when there is no such listener.
func (s *Server) WebsocketURL() string { return s.current.Load().WebsocketURL() }

// LeafAddr is the host:port that edges and other hubs join; "" for a leaf.
func (s *Server) LeafAddr() string { return s.leaf }

// InProcessConn is a connection without a socket, for a client in this process.
func (s *Server) InProcessConn() (net.Conn, error) { return s.current.Load().InProcessConn() }

// OwnUser is the user of this process on an edge's server, who is known to
// nobody else, and the beginning of the subjects to which answers may come;
// empty on a hub.
func (s *Server) OwnUser() (name, password, inbox string) {
	if s.secret == "" {
		return "", "", ""
	}
	return own, s.secret, auth.EdgeInbox(s.node)
}

// Interest reports whether anybody, here or across the leafs, subscribes to
// subject. It reads memory only.
func (s *Server) Interest(subject string) bool {
	n := s.current.Load()
	for _, name := range s.accounts {
		if a, err := n.LookupAccount(name); err == nil && a.SubscriptionInterest(subject) {
			return true
		}
	}
	return false
}

// NumLeafs is the number of leaf connections now up, either way.
func (s *Server) NumLeafs() int { return s.current.Load().NumLeafNodes() }

// NumRoutes is the number of other servers of the region that are connected.
func (s *Server) NumRoutes() int { return s.current.Load().NumRemotes() }

// Rebuilt is how often the watchdog has built the server anew.
func (s *Server) Rebuilt() uint64 { return s.rebuilt.Load() }

// UpdateAccount takes a newer JWT of an account, such as one that revokes a
// user, if the operator signed it; an older one changes nothing. It is kept in
// the server's folder. Servers of a region tell each other, within minutes: for
// all to have it at once, give it to each.
func (s *Server) UpdateAccount(token string) error {
	if s.trust == nil {
		return errors.New("account JWT: this server has no operator")
	}
	name, key, err := s.trust.AccountOf(token)
	if err != nil {
		return err
	}
	n := s.current.Load()
	if err := n.AccountResolver().Store(key, token); err != nil {
		return fmt.Errorf("account %s: %w", name, err)
	}
	return nil
}

// Shutdown stops the server and returns when it is down, or after a bound.
// Calling it again changes nothing.
func (s *Server) Shutdown() {
	if s.stopping != nil {
		s.stopping()
	}
	s.watching.Wait()
	if n := s.current.Load(); n != nil {
		s.stop(n)
	}
}

func (s *Server) stop(n *server.Server) {
	down := make(chan struct{})
	go func() {
		n.Shutdown()
		n.WaitForShutdown()
		close(down)
	}()
	select {
	case <-down:
	case <-time.After(shutdownWithin):
		s.log.Error("NATS server is not down in time", "server", n.Name(), "after", shutdownWithin)
	}
}

func (s *Server) start(ctx context.Context, conf object) (*server.Server, *server.Options, error) {
	opts, err := options(conf)
	if err != nil {
		return nil, nil, err
	}
	n, err := server.NewServer(opts)
	if err != nil {
		return nil, nil, err
	}
	n.SetLoggerV2(serverLog{s.log.With("server", opts.ServerName), &sparing.Log{}}, s.log.Enabled(ctx, slog.LevelDebug), false, false)
	n.Start()
	wait := readyWithin
	if at, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(at))
	}
	if !n.ReadyForConnections(wait) {
		s.stop(n)
		return nil, nil, fmt.Errorf("does not listen after %v", wait)
	}
	return n, opts, nil
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func (c *HubConfig) name() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Region
}

func (c *LeafConfig) tenant() string {
	if c.Tenant != "" {
		return c.Tenant
	}
	return c.Login.Tenant
}

func leafURL(addr string, user *url.Userinfo) string {
	return (&url.URL{Scheme: "nats-leaf", User: user, Host: addr}).String()
}
