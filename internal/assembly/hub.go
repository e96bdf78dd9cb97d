package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A Login is the tenant's user on every hub and edge.
type Login = embed.Login

// HubConfig is all that one region's hub needs.
type HubConfig struct {
	Tenant, Region string
	Dir            string
	Login          Login
	Host           string // "" is 127.0.0.1
	// Ports to listen on; 0 takes a free one.
	ClientPort, LeafPort, WebsocketPort int
	// Join is the leaf address of the hub that this one is a leaf of; "" for
	// the centre of the star.
	Join string
	// Peers are the other regions, whose releases are copied.
	Peers []string
	// Keys are the log keys of the nodes.
	Keys *audit.Keys
	Log  *slog.Logger
}

// A Hub is one running region: a NATS server with the region's streams, the
// copying of releases from the other regions, and the ledger.
type Hub struct {
	server  *embed.Server
	conn    *bus.Conn
	ledger  *ledger.Ledger
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// RegionKeyFile is where a region whose folder is dir keeps its ledger key.
func RegionKeyFile(dir string) string { return filepath.Join(dir, "region.key") }

// LedgerDir is where a region whose folder is dir keeps its ledger.
func LedgerDir(dir string) string { return filepath.Join(dir, "ledger") }

// StartHub starts a region and returns when its streams are there.
func StartHub(ctx context.Context, cfg HubConfig) (_ *Hub, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	h := &Hub{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("region %s: %w", cfg.Region, err), h.Close())
		}
	}()
	key, _, err := journal.LoadOrCreateKey(RegionKeyFile(cfg.Dir), audit.RegionKeyName(cfg.Tenant, cfg.Region))
	if err != nil {
		return nil, err
	}
	h.server, err = embed.Hub(ctx, embed.HubConfig{
		Region: cfg.Region, Dir: filepath.Join(cfg.Dir, "nats"), Login: cfg.Login, Host: cfg.Host,
		ClientPort: cfg.ClientPort, LeafPort: cfg.LeafPort, WebsocketPort: cfg.WebsocketPort, Websocket: true,
		Join: cfg.Join, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	h.conn, err = bus.Connect(ctx, bus.Config{
		Server: h.server, User: cfg.Login.User, Password: cfg.Login.Password, Name: "hub " + cfg.Region, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	region := jetstream.Region{Conn: h.conn, Tenant: cfg.Tenant, Name: cfg.Region}
	if err := region.Create(ctx); err != nil {
		return nil, err
	}
	if h.ledger, err = openLedger(cfg, key, jetstream.Input{Region: region}); err != nil {
		return nil, err
	}
	h.run(cfg, region)
	return h, nil
}

func openLedger(cfg HubConfig, key note.Signer, input ledger.Input) (*ledger.Ledger, error) {
	return ledger.Open(ledger.Config{
		Dir: LedgerDir(cfg.Dir), Tenant: cfg.Tenant, Region: cfg.Region, Key: key, Keys: cfg.Keys, Input: input, Log: cfg.Log,
	})
}

func (h *Hub) run(cfg HubConfig, region jetstream.Region) {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	start := func(what string, run func() error) {
		h.running.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				cfg.Log.Error(what+" stopped", "region", cfg.Region, "err", err)
			}
		})
	}
	start("ledger", func() error { return h.ledger.Run(ctx) })
	start("gate", func() error { return jetstream.NewGate(region, cfg.Log).Run(ctx) })
	for _, peer := range cfg.Peers {
		from := jetstream.Region{Conn: h.conn, Tenant: cfg.Tenant, Name: peer}
		start("copying from "+peer, func() error { return region.Copy(ctx, from, cfg.Log) })
	}
}

// Server is the region's NATS server.
func (h *Hub) Server() *embed.Server { return h.server }

// Ledger is the region's ledger.
func (h *Hub) Ledger() *ledger.Ledger { return h.ledger }

// Close stops the region.
func (h *Hub) Close() error {
	if h.cancel != nil {
		h.cancel()
	}
	h.running.Wait()
	if h.conn != nil {
		h.conn.Close()
	}
	if h.server != nil {
		h.server.Shutdown()
	}
	return nil
}
