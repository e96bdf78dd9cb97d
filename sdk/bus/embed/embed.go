// Package embed runs NATS inside the process: a hub, which holds a region's
// streams, or an edge's leaf node. It is the only importer of nats-server.
//
// Hubs and edges of one tenant share one login until credentials are issued,
// and nothing is under TLS: listen on loopback or on a network that is yours.
package embed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// MaxPayload bounds one message, in bytes.
const MaxPayload = 1 << 20

// Bounds of everything that waits.
const (
	readyWithin  = 10 * time.Second
	pingEvery    = "2s"
	pingsMissed  = 2
	reconnectAt  = "250ms"
	connectLimit = "2s"
	maxMemory    = 64 << 20
)

// A Login is the user of a tenant's account on every hub and edge of it.
type Login struct {
	Tenant, User, Password string
}

// HubConfig describes a region's hub.
type HubConfig struct {
	// Region is the name of the region and of its JetStream domain.
	Region string
	// Dir holds the streams. Every message in it is fsynced before its
	// acknowledgement.
	Dir   string
	Login Login
	// Host to listen on; "" is 127.0.0.1.
	Host string
	// Ports to listen on; 0 takes a free one.
	ClientPort, LeafPort, WebsocketPort int
	// Websocket opens a listener for browsers.
	Websocket bool
	// Join is the leaf address (host:port) of the hub that this one is a
	// leaf of; "" for the centre of the star.
	Join string
	Log  *slog.Logger
}

// LeafConfig describes an edge's server.
type LeafConfig struct {
	// Node is the name of the edge and of its JetStream domain.
	Node  string
	Dir   string
	Login Login
	// Host to listen on for the workloads beside the edge; "" is 127.0.0.1.
	Host string
	// ClientPort to listen on; 0 takes a free one.
	ClientPort int
	// Hubs are leaf addresses (host:port), the preferred one first. The edge
	// is connected to one of them at a time.
	Hubs []string
	Log  *slog.Logger
}

// A Server is a running NATS server.
type Server struct {
	nats    *server.Server
	account *server.Account
	leaf    string
}

// Hub starts a region's hub and returns when it listens.
func Hub(ctx context.Context, c HubConfig) (*Server, error) {
	leafs := object{"host": host(c.Host), "port": port(c.LeafPort), "no_advertise": true}
	if c.Join != "" {
		leafs["reconnect"] = reconnectAt
		leafs["remotes"] = remote(c.Login, c.Join)
	}
	conf := config(c.Region, c.Dir, c.Login)
	conf["host"], conf["port"] = host(c.Host), port(c.ClientPort)
	conf["leafnodes"] = leafs
	if c.Websocket {
		conf["websocket"] = object{"host": host(c.Host), "port": port(c.WebsocketPort), "no_tls": true}
	}
	s, err := start(ctx, conf, c.Login.Tenant, c.Log)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", c.Region, err)
	}
	return s, nil
}

// Leaf starts an edge's server and returns when it listens. It does not wait
// for a hub: an edge works alone.
func Leaf(ctx context.Context, c LeafConfig) (*Server, error) {
	conf := config(c.Node, c.Dir, c.Login)
	conf["host"], conf["port"] = host(c.Host), port(c.ClientPort)
	if len(c.Hubs) > 0 {
		conf["leafnodes"] = object{"reconnect": reconnectAt, "remotes": remote(c.Login, c.Hubs...)}
	}
	s, err := start(ctx, conf, c.Login.Tenant, c.Log)
	if err != nil {
		return nil, fmt.Errorf("leaf %s: %w", c.Node, err)
	}
	return s, nil
}

// ClientURL is where clients connect, without the login.
func (s *Server) ClientURL() string { return s.nats.ClientURL() }

// WebsocketURL is where browsers connect; "" when there is no such listener.
func (s *Server) WebsocketURL() string { return s.nats.WebsocketURL() }

// LeafAddr is the host:port that edges and other hubs join; "" for a leaf.
func (s *Server) LeafAddr() string { return s.leaf }

// InProcessConn is a connection without a socket, for a client in this process.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Interest reports whether anybody, here or across the leafs, subscribes to
// subject. It reads memory only.
func (s *Server) Interest(subject string) bool { return s.account.SubscriptionInterest(subject) }

// NumLeafs is the number of leaf connections now up, either way.
func (s *Server) NumLeafs() int { return s.nats.NumLeafNodes() }

// Shutdown stops the server and returns when it is down. Calling it again
// changes nothing.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// object is a block of the server's configuration language, which takes JSON.
type object map[string]any

func config(name, dir string, l Login) object {
	return object{
		"server_name": name,
		"jetstream": object{
			"domain": name, "store_dir": dir, "sync_interval": "always", "max_mem": maxMemory,
		},
		"max_payload":    MaxPayload,
		"ping_interval":  pingEvery,
		"ping_max":       pingsMissed,
		"system_account": "SYS",
		"accounts": object{
			"SYS":    object{},
			l.Tenant: object{"jetstream": "enabled", "users": []object{{"user": l.User, "password": l.Password}}},
		},
	}
}

// remote is one remote with every URL: two remotes into one account make loops.
func remote(l Login, addrs ...string) []object {
	urls := make([]string, len(addrs))
	for i, a := range addrs {
		urls[i] = (&url.URL{Scheme: "nats-leaf", User: url.UserPassword(l.User, l.Password), Host: a}).String()
	}
	return []object{{"urls": urls, "account": l.Tenant, "no_randomize": true, "first_info_timeout": connectLimit}}
}

func host(h string) string {
	if h == "" {
		return "127.0.0.1"
	}
	return h
}

// port translates our 0 into the server's word for a free port.
func port(p int) int {
	if p == 0 {
		return server.RANDOM_PORT
	}
	return p
}

func start(ctx context.Context, conf object, tenant string, log *slog.Logger) (*Server, error) {
	opts, err := options(conf)
	if err != nil {
		return nil, err
	}
	n, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n.SetLoggerV2(logger{log.With("server", opts.ServerName)}, log.Enabled(ctx, slog.LevelDebug), false, false)
	n.Start()
	s := &Server{nats: n}
	if err := s.ready(ctx, tenant); err != nil {
		s.Shutdown()
		return nil, err
	}
	if opts.LeafNode.Port != 0 {
		s.leaf = net.JoinHostPort(opts.LeafNode.Host, strconv.Itoa(opts.LeafNode.Port))
	}
	return s, nil
}

func options(conf object) (*server.Options, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // the server's language has no \u escapes
	if err := enc.Encode(conf); err != nil {
		return nil, err
	}
	opts := &server.Options{NoSigs: true}
	if err := opts.ProcessConfigString(text.String()); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return opts, nil
}

func (s *Server) ready(ctx context.Context, tenant string) (err error) {
	wait := readyWithin
	if at, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(at))
	}
	if !s.nats.ReadyForConnections(wait) {
		return fmt.Errorf("does not listen after %v", wait)
	}
	if !s.nats.JetStreamEnabled() {
		return errors.New("JetStream is not enabled; the log says why")
	}
	s.account, err = s.nats.LookupAccount(tenant)
	return err
}
