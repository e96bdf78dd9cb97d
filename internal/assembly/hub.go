package assembly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// HubConfig is all that one hub server of a region needs.
type HubConfig struct {
	Region string
	// Server is this server's name, unlike any other's; "" is the region's name,
	// for a region of one server.
	Server string
	Dir    string
	// Trust, TLS, Host, the ports, Routes and Links are those of the embedded NATS
	// server, as embed.HubConfig has them.
	Trust                                            *auth.Trust
	TLS                                              *auth.TLSFiles
	Host                                             string
	ClientPort, LeafPort, WebsocketPort, ClusterPort int
	Websocket                                        bool
	Routes                                           []string
	ClusterSecret                                    string
	Links                                            []embed.Link
	// URLs are of NATS servers that the user runs, in the place of an embedded
	// one. CA verifies them; NoDomain says that their JetStream has no domain.
	URLs     []string
	CA       string
	NoDomain bool
	// Replicas is on how many servers each stream is; 0 is three with routes and
	// one without.
	Replicas int
	Tenants  []TenantConfig
	// Peers are the other regions, whose signed objects are copied.
	Peers []string
	// Listen is where /livez, /readyz and /metrics are; "" for nowhere.
	Listen string
	// Webhook takes alarms; "" for none.
	Webhook string
	// Beat is the time between heartbeats, 0 is the default.
	Beat time.Duration
	// Sweep is the time between two sweeps of the stream of records, 0 is the default.
	Sweep time.Duration
	// LogLevel is what the configuration file asks for; SetLogLevel, if set, is
	// called when a reload changes it.
	LogLevel    string
	SetLogLevel func(string)
	Log         *slog.Logger
}

// TenantConfig is a tenant on a hub.
type TenantConfig struct {
	Name string
	// Creds is the path of this server's credentials in the tenant's account.
	Creds string
	Root  *bundle.TrustRoot
	// Heartbeat is the region's key; without one this region says no heartbeats
	// and leads no rollouts.
	Heartbeat *bundle.PrivateKey
	// Keys are log keys that count beside those of enrolments.
	Keys *audit.Keys
}

func (c *HubConfig) server() string { return cmp.Or(c.Server, c.Region) }

func (c *HubConfig) replicas() int {
	if c.Replicas == 0 && len(c.Routes) > 1 {
		return 3
	}
	return max(c.Replicas, 1)
}

// A Hub is one hub server of a region: NATS, and for each tenant its streams,
// the gate for edges, the copying of signed objects from the other regions, the
// ledger, and a part in leading the region.
type Hub struct {
	cfg      HubConfig
	nats     *embed.Server // nil when the user runs the servers
	tenants  []*tenant
	webhook  atomic.Pointer[runningWebhook] // nil for none
	http     *http.Server
	listener net.Listener
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// RegionKeyFile is where a region whose folder is dir keeps its ledger key.
func RegionKeyFile(dir string) string { return filepath.Join(dir, "region.key") }

// LedgerDir is where a region whose folder is dir keeps its ledger.
func LedgerDir(dir string) string { return filepath.Join(dir, "ledger") }

// StartHub starts a hub server and returns when it listens. Its streams are
// there when Ready returns nil: of three servers that takes two.
func StartHub(ctx context.Context, cfg HubConfig) (_ *Hub, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Log = cfg.Log.With("region", cfg.Region)
	h := &Hub{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("region %s: %w", cfg.Region, err), h.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := h.setWebhook(cfg.Webhook); err != nil {
		return nil, err
	}
	if len(cfg.URLs) == 0 {
		if h.nats, err = embed.Hub(ctx, h.embedded()); err != nil {
			return nil, err
		}
	}
	for _, t := range cfg.Tenants {
		opened, err := h.open(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %w", t.Name, err)
		}
		h.tenants = append(h.tenants, opened)
	}
	if cfg.Listen != "" {
		if h.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, err
		}
	}
	h.run()
	return h, nil
}

func (h *Hub) embedded() embed.HubConfig {
	c := &h.cfg
	return embed.HubConfig{
		Region: c.Region, Name: c.server(), Dir: filepath.Join(c.Dir, "nats"), Trust: c.Trust, TLS: c.TLS, Host: c.Host,
		ClientPort: c.ClientPort, LeafPort: c.LeafPort, WebsocketPort: c.WebsocketPort, Websocket: c.Websocket,
		Routes: c.Routes, ClusterPort: c.ClusterPort, ClusterSecret: c.ClusterSecret, Links: c.Links, Log: c.Log,
	}
}

// connect is a connection in a tenant's account.
func (h *Hub) connect(ctx context.Context, t TenantConfig) (*bus.Conn, error) {
	c := bus.Config{Creds: t.Creds, Name: "hub " + h.cfg.server(), Log: h.cfg.Log}
	if h.nats != nil {
		c.Server = h.nats
	} else {
		c.URLs, c.CA = h.cfg.URLs, h.cfg.CA
	}
	return dial(ctx, c)
}

// dials is how often a part connects to its own server before it gives up: one
// that comes back into its cluster may refuse a client at first.
const dials = 5

// dial connects; to servers that the user runs, once.
func dial(ctx context.Context, c bus.Config) (conn *bus.Conn, err error) {
	for try := range dials {
		if conn, err = bus.Connect(ctx, c); err == nil || c.Server == nil || ctx.Err() != nil {
			return conn, err
		}
		if try == 0 {
			c.Log.Warn("own NATS server; again in a moment", "err", err)
		}
		pause(ctx, 250*time.Millisecond)
	}
	return nil, err
}

func (h *Hub) run() {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	for _, t := range h.tenants {
		h.running.Go(func() { t.run(ctx) })
	}
	if h.listener == nil {
		return
	}
	h.http = &http.Server{Handler: h.operations(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	h.running.Go(func() {
		if err := h.http.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
			h.cfg.Log.Error("operations listener closed", "err", err)
		}
	})
}

// operations is what Listen answers.
func (h *Hub) operations() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", h.metrics())
	return mux
}

// Ready returns why the region cannot be used through this server, or nil: every
// tenant's streams are there, and its gate is opening.
func (h *Hub) Ready() error {
	for _, t := range h.tenants {
		if err := t.ready(); err != nil {
			return fmt.Errorf("tenant %s: %w", t.cfg.Name, err)
		}
	}
	return nil
}

// WaitReady returns when Ready does.
func (h *Hub) WaitReady(ctx context.Context) error {
	for {
		err := h.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("region %s: %w", h.cfg.Region, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runningWebhook is a webhook that delivers until stop.
type runningWebhook struct {
	*hub.Webhook
	stop func()
}

// setWebhook has alarms go to a URL, "" to none; those that wait for the one
// before are given up.
func (h *Hub) setWebhook(to string) error {
	var next *runningWebhook
	if to != "" {
		w, err := hub.NewWebhook(to, h.cfg.Log)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		var delivering sync.WaitGroup
		delivering.Go(func() { w.Run(ctx) })
		next = &runningWebhook{w, func() { cancel(); delivering.Wait() }}
	}
	if before := h.webhook.Swap(next); before != nil {
		before.stop()
	}
	return nil
}

// Reload reads the configuration again and takes what can change while the
// server runs: the log level and the webhook. What needs a restart is an error,
// and changes nothing.
func (h *Hub) Reload(file string) error {
	next, err := ReadHubConfig(file)
	if err != nil {
		return err
	}
	level, webhook := next.LogLevel, next.Webhook
	have, changed := h.cfg, tenantsText(h.cfg.Tenants) != tenantsText(next.Tenants)
	for _, c := range []*HubConfig{&have, &next} {
		c.LogLevel, c.SetLogLevel, c.Log, c.Webhook, c.Tenants = "", nil, nil, "", nil
	}
	if !reflect.DeepEqual(have, next) || changed {
		return errors.New("what changed beside log and alarms needs a restart")
	}
	if h.cfg.SetLogLevel != nil {
		h.cfg.SetLogLevel(level)
	}
	return h.setWebhook(webhook)
}

// tenantsText is what a restart is needed for when it changes. Trust roots beyond
// the first come from the region itself.
func tenantsText(tenants []TenantConfig) string {
	var text strings.Builder
	for _, t := range tenants {
		key := ""
		if t.Heartbeat != nil {
			key = t.Heartbeat.ID
		}
		fmt.Fprintln(&text, t.Name, t.Creds, t.Root.Version, key)
	}
	return text.String()
}

// Server is the embedded NATS server; nil when the user runs the servers.
func (h *Hub) Server() *embed.Server { return h.nats }

// URL is where /metrics and the others answer; "" for nowhere.
func (h *Hub) URL() string {
	if h.listener == nil {
		return ""
	}
	return "http://" + h.listener.Addr().String()
}

// Ledger is the ledger of the first tenant.
func (h *Hub) Ledger() *ledger.Ledger { return h.tenants[0].ledger }

// View is what is in force for the first tenant, as this server knows it.
func (h *Hub) View() registry.View { return h.tenants[0].lead.View() }

// Leading reports whether this server leads the region for a tenant.
func (h *Hub) Leading(tenant string) bool {
	for _, t := range h.tenants {
		if t.cfg.Name == tenant {
			return t.lead.Leading()
		}
	}
	return false
}

// Close gives up the lease and stops the server.
func (h *Hub) Close() error {
	var errs []error
	if h.http != nil {
		errs = append(errs, h.http.Close())
	} else if h.listener != nil {
		errs = append(errs, h.listener.Close())
	}
	if h.cancel != nil {
		h.cancel()
	}
	h.running.Wait()
	_ = h.setWebhook("") // cannot fail
	for _, t := range h.tenants {
		t.close()
	}
	if h.nats != nil {
		h.nats.Shutdown()
	}
	return errors.Join(errs...)
}

// opened is why something is not open yet, nil when it is.
type opened struct{ err atomic.Pointer[error] }

func (o *opened) set(err error) { o.err.Store(&err) }

func (o *opened) get() error {
	if err := o.err.Load(); err != nil {
		return *err
	}
	return errors.New("starting")
}
