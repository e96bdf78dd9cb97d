package assembly

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A RegionLink is how an edge reaches a region and knows its ledger.
type RegionLink struct {
	Name string
	// Leaf is the host:port that leaf nodes join.
	Leaf string
	// Key is the verifier key of the region's ledger.
	Key string
}

// An uplink is an edge's side of NATS: its own server, a leaf of the regions,
// through which releases come and records and live decisions go.
type uplink struct {
	cfg     EdgeConfig
	server  *embed.Server
	conn    *bus.Conn
	source  *jetstream.Source
	shipper *ship.Shipper // made when there is a node
}

// drainShipping bounds how long a stopping edge waits for the regions.
const drainShipping = 3 * time.Second

func newUplink(ctx context.Context, cfg EdgeConfig) (*uplink, error) {
	u := &uplink{cfg: cfg}
	var hubs, names []string
	for _, r := range cfg.Regions {
		hubs, names = append(hubs, r.Leaf), append(names, r.Name)
	}
	var err error
	u.server, err = embed.Leaf(ctx, embed.LeafConfig{
		Node: cfg.Node, Dir: filepath.Join(cfg.Dir, "nats"), Login: cfg.Login, Hubs: hubs, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	u.conn, err = bus.Connect(ctx, bus.Config{
		Server: u.server, Name: "node " + cfg.Node, Log: cfg.Log,
	})
	if err != nil {
		u.close()
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	u.source = &jetstream.Source{Conn: u.conn, Tenant: cfg.Tenant, Node: cfg.Node, Regions: names, Log: cfg.Log}
	return u, nil
}

// drain waits a bounded time until every region has counter-signed everything.
func (u *uplink) drain(node *edge.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainShipping)
	defer cancel()
	for _, b := range node.Journal().Boots() {
		if err := u.shipper.Wait(ctx, b.ID, b.Size); err != nil {
			return fmt.Errorf("boot %s: %w", b.ID, err)
		}
	}
	return nil
}

func (u *uplink) newShipper(node *edge.Node) (*ship.Shipper, error) {
	key, err := note.NewVerifier(node.VerifierKey())
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	cfg := ship.Config{
		Node: u.cfg.Node, Key: key, Journal: running{node}, Log: u.cfg.Log,
		OnEvidence: func(e ship.Evidence) {
			node.Record(&audit.AdminRecord{Event: "region_ahead_of_journal", Count: e.RegionLast - e.JournalLast,
				Text: fmt.Sprintf("region %s holds boot %s up to %d, the journal up to %d", e.Region, e.Boot, e.RegionLast, e.JournalLast)})
		},
	}
	for _, r := range u.cfg.Regions {
		regionKey, err := note.NewVerifier(r.Key)
		if err != nil {
			return nil, fmt.Errorf("key of region %s: %w", r.Name, err)
		}
		sink := jetstream.Sink{Region: jetstream.Region{Conn: u.conn, Tenant: u.cfg.Tenant, Name: r.Name}, Node: key, Ledger: regionKey}
		cfg.Regions = append(cfg.Regions, ship.Region{Name: r.Name, Sink: sink, Key: regionKey})
	}
	return ship.New(cfg)
}

// running is the journal that the node has at the moment: after a disk failure
// it is another one.
type running struct{ node *edge.Node }

func (r running) Boots() []journal.Boot    { return r.node.Journal().Boots() }
func (r running) Changed() <-chan struct{} { return r.node.Journal().Changed() }
func (r running) ReadBatch(boot string, from uint64, records, bytes int) (*audit.Batch, error) {
	return r.node.Journal().ReadBatch(boot, from, records, bytes)
}

// live publishes a recorded decision where somebody listens, and nowhere else.
func (u *uplink) live(r *audit.Record, ref audit.Ref) {
	if r.Decision == nil {
		return
	}
	for _, form := range []jetstream.Form{jetstream.JSON, jetstream.CBOR} {
		subject := jetstream.LiveSubject(u.cfg.Tenant, form, u.cfg.Node, r.Decision.Verdict.String(), r.Decision.Point)
		if !u.server.Interest(subject) {
			continue
		}
		msg, err := NewLiveDecision(u.cfg.Node, r, ref).encode(form)
		if err == nil {
			err = u.conn.Publish(subject, msg)
		}
		if err != nil {
			u.cfg.Log.Log(context.Background(), slog.LevelDebug, "live decision not published", "node", u.cfg.Node, "err", err)
		}
	}
}

func (u *uplink) close() {
	if u.conn != nil {
		u.conn.Close()
	}
	u.server.Shutdown()
}
