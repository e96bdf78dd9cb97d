package assembly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// A tenant is one tenant's part of a hub server.
type tenant struct {
	cfg    TenantConfig
	hub    *Hub
	conn   *bus.Conn
	region jetstream.Region
	lease  *jetstream.Lease
	lead   *hub.Hub
	ledger *ledger.Ledger
	keys   *audit.Keys
	nodes  *nodeKeys
	state  opened
	log    *slog.Logger
}

// tenantDir is where a hub server keeps what is a tenant's. The first tenant of a
// server has the server's folder itself, and keeps it when others come: its
// ledger and the ledger's key, which its nodes know, are there.
func (c *HubConfig) tenantDir(name string) string {
	own := filepath.Join(c.Dir, "tenants", name)
	if _, err := os.Stat(own); err == nil {
		return own
	}
	_, _, err := journal.LoadKey(RegionKeyFile(c.Dir), audit.RegionKeyName(name, c.Region))
	if err == nil || len(c.Tenants) == 1 {
		return c.Dir
	}
	return own
}

func (h *Hub) open(ctx context.Context, cfg TenantConfig) (_ *tenant, err error) {
	t := &tenant{cfg: cfg, hub: h, keys: cfg.Keys, log: h.cfg.Log.With("tenant", cfg.Name)}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.keys == nil {
		t.keys = &audit.Keys{}
	}
	dir := h.cfg.tenantDir(cfg.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if t.nodes, err = openNodeKeys(filepath.Join(dir, "node.keys"), t.keys); err != nil {
		return nil, err
	}
	key, err := h.cfg.regionKey(dir, cfg.Name)
	if err != nil {
		return nil, err
	}
	if t.conn, err = h.connect(ctx, cfg); err != nil {
		return nil, err
	}
	t.region = jetstream.Region{Conn: t.conn, Tenant: cfg.Name, Name: h.cfg.Region, NoDomain: h.cfg.NoDomain, Replicas: h.cfg.replicas()}
	t.lease = t.region.NewLease()
	t.lead, err = hub.New(hub.Config{
		Tenant: cfg.Name, Region: h.cfg.Region, Server: h.cfg.server(), Root: cfg.Root, Key: cfg.Heartbeat, Beat: h.cfg.Beat,
		Reader: t.region, Writer: writer{t.region, t.lease}, Alarm: t.alarm, Enrolled: t.enrolled, Log: t.log,
	})
	if err != nil {
		return nil, err
	}
	t.ledger, err = ledger.Open(ledger.Config{
		Dir: LedgerDir(dir), Tenant: cfg.Name, Region: h.cfg.Region, Key: key, Keys: t.keys,
		Input: jetstream.Input{Region: t.region}, Peers: t.peers(), Leading: t.lead.Leading, Alarm: t.contradiction, Log: t.log,
	})
	return t, err
}

// regionKey is the key with which the region's ledger counter-signs, the same on
// all of its servers: one that made its own would sign what no node believes.
func (c *HubConfig) regionKey(dir, tenant string) (note.Signer, error) {
	file, name := RegionKeyFile(dir), audit.RegionKeyName(tenant, c.Region)
	if len(c.Routes) < 2 {
		key, _, err := journal.LoadOrCreateKey(file, name)
		return key, err
	}
	key, _, err := journal.LoadKey(file, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; the servers of a region share it: copy it from another one, or from the folder that `holdfast fleet` made for this one", err)
	}
	return key, err
}

// peers is how the ledger learns from other servers.
func (t *tenant) peers() jetstream.Peers {
	return jetstream.Peers{Region: t.region, Server: t.hub.cfg.server(), Others: t.hub.cfg.Peers, Log: t.log}
}

// sweeper removes from the stream what most of the region's servers have archived.
func (t *tenant) sweeper() *jetstream.Sweeper {
	return &jetstream.Sweeper{
		Region: t.region, Server: t.hub.cfg.server(), Servers: max(1, len(t.hub.cfg.Routes)), Every: t.hub.cfg.Sweep, Leading: t.lead.Leading, Log: t.log,
		Kept: func() (position string, but []string) {
			position, boots := t.ledger.Kept()
			for _, b := range boots {
				but = append(but, b.Node+"."+b.Boot)
			}
			return position, but
		},
	}
}

// contradiction raises what the ledger found, whoever leads.
func (t *tenant) contradiction(a ledger.Alarm) {
	text := a.Reason + ": " + a.Text
	if a.Boot != "" {
		text = "boot " + a.Boot + ": " + text
	}
	t.alarm(hub.Alarm{
		ID: hub.AlarmLedger + "/" + a.Reason + "/" + a.Node + "/" + a.Boot, Kind: hub.AlarmLedger, Tenant: t.cfg.Name, Region: t.hub.cfg.Region,
		Node: a.Node, Text: text, At: time.Now().UTC(),
	})
}

// writer is what the leading server writes with.
type writer struct {
	jetstream.Region
	lease *jetstream.Lease
}

func (w writer) Lease(ctx context.Context, holder string, term time.Duration) (bool, error) {
	return w.lease.Hold(ctx, holder, term)
}

func (w writer) Order(ctx context.Context, epoch, serial uint64, envelope []byte) error {
	err := w.PutOrder(ctx, epoch, serial, envelope)
	if errors.Is(err, jetstream.ErrConflict) {
		return fmt.Errorf("%w: %w", hub.ErrTaken, err)
	}
	return err
}

// enrolled trusts a node's log key from its enrolment on, and those before it for
// what they signed.
func (t *tenant) enrolled(e *bundle.SignedEnrolment) {
	if err := t.nodes.enrolled(e); err != nil {
		t.log.Error("log key of an enrolment", "node", e.Node, "err", err)
	}
}

// alarm delivers an alarm on the bus and to the webhook.
func (t *tenant) alarm(a hub.Alarm) {
	if msg, err := json.Marshal(a); err == nil {
		if err := t.region.Alarm(a.Kind, msg); err != nil {
			t.log.Warn("alarm not published", "id", a.ID, "err", err)
		}
	}
	if w := t.hub.webhook.Load(); w != nil {
		w.Alarm(a)
	}
}

// run works until ctx ends. What stops for a passing cause is started again.
func (t *tenant) run(ctx context.Context) {
	if !t.create(ctx) {
		return
	}
	var running sync.WaitGroup
	keep := func(what string, run func() error) {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := run(); ctx.Err() == nil {
					t.log.Error(what+" stopped; again in a second", "err", err)
					pause(ctx, time.Second)
				}
			}
		})
	}
	gate := jetstream.NewGate(t.region, t.log)
	gate.Believe(t.cfg.Root)
	gate.Beside(t.ledger)
	keep("gate", func() error { return gate.Run(ctx) })
	keep("ledger", func() error { return t.ledger.Run(ctx) })
	keep("giving archived batches", func() error { return t.peers().Serve(ctx, t.ledger) })
	keep("sweep", func() error { return t.sweeper().Run(ctx) })
	keep("streams", func() error { return t.keepStreams(ctx) })
	keep("lead", func() error { return t.lead.Run(ctx) })
	keep("documents about records", func() error { return t.documents(ctx) })
	if t.hub.nats != nil {
		keep("accounts", func() error { return t.region.Accounts(ctx, t.hub.nats.UpdateAccount) })
	}
	for _, peer := range t.hub.cfg.Peers {
		from := t.region
		from.Name, from.NoDomain = peer, false
		keep("copying from "+peer, func() error { return t.region.Copy(ctx, from, t.log) })
	}
	t.state.set(nil)
	running.Wait()
}

// create makes the streams, however long the region's other servers take.
func (t *tenant) create(ctx context.Context) bool {
	for told := ""; ctx.Err() == nil; pause(ctx, 250*time.Millisecond) {
		err := t.region.Create(ctx)
		if err == nil {
			return true
		}
		t.state.set(err)
		if why := err.Error(); why != told && ctx.Err() == nil {
			told = why
			t.log.Warn("streams are not there yet", "err", err)
		}
	}
	return false
}

// keepStreams makes the streams again that somebody has deleted, until ctx ends.
// What they held comes back: objects from the other region, records and receipts
// from the ledgers and the nodes.
func (t *tenant) keepStreams(ctx context.Context) error {
	for {
		missing, err := t.region.Missing(ctx)
		if err != nil && ctx.Err() == nil {
			t.log.Debug("streams not looked at", "err", err)
		}
		if missing {
			t.log.Error("a stream is gone; it is made anew")
			if err := t.region.Create(ctx); err != nil {
				t.log.Warn("streams are not there yet", "err", err)
			} else {
				t.ledger.Resign()
			}
		}
		pause(ctx, streamsEvery)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// streamsEvery is how often a server looks whether the streams are there.
const streamsEvery = 2 * time.Second

func (t *tenant) ready() error { return t.state.get() }

func (t *tenant) close() {
	if t.conn == nil {
		return
	}
	if t.lease != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := t.lease.Release(ctx); err != nil {
			t.log.Debug("lease not given up; it passes", "err", err)
		}
	}
	t.conn.Close()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
