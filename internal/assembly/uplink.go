package assembly

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/serve/natsapi"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A RegionLink is how an edge reaches a region and knows its ledger.
type RegionLink struct {
	Name string
	// Leafs are the host:port of the region's hub servers that leaf nodes join;
	// none with EdgeNATS.URLs.
	Leafs []string
	// Key is the verifier key of the region's ledger.
	Key string
}

// EdgeNATS is how an edge connects.
type EdgeNATS struct {
	// Creds is the path of the node's credentials.
	Creds string
	// CA verifies the servers; "" for connections without TLS.
	CA string
	// URLs are of NATS servers that the user runs: the edge is then a client of
	// theirs and has no server of its own.
	URLs []string
	// Host and Port are where workloads beside the edge connect; "" is 127.0.0.1
	// and 0 a free port. Workloads are their users, who may ask and tail.
	Host      string
	Port      int
	Workloads []embed.User
}

// An uplink is an edge's side of NATS: its own server, a leaf of the regions, or
// a connection to servers that the user runs. Through it signed objects come and
// records, attestations and live decisions go.
type uplink struct {
	cfg     EdgeConfig
	server  *embed.Server // nil when the user runs the servers
	conn    *bus.Conn
	source  *jetstream.Source
	shipper *ship.Shipper // made when there is a node
	trimmer *ship.Trimmer // too
	mu      sync.Mutex    // guards retired, and shipper until it is made
	retired []string      // regions
	asked   func()        // stops answering over the bus
}

// drainShipping bounds how long a stopping edge waits for the regions.
const drainShipping = 3 * time.Second

func newUplink(ctx context.Context, cfg EdgeConfig) (_ *uplink, err error) {
	u := &uplink{cfg: cfg}
	defer func() {
		if err != nil {
			u.close()
			err = fmt.Errorf("node %s: %w", cfg.Node, err)
		}
	}()
	var hubs, names []string
	for _, r := range cfg.Regions {
		hubs, names = append(hubs, r.Leafs...), append(names, r.Name)
	}
	conn := bus.Config{Name: "node " + cfg.Node, Log: cfg.Log}
	if len(cfg.NATS.URLs) > 0 {
		conn.URLs, conn.Creds, conn.CA = cfg.NATS.URLs, cfg.NATS.Creds, cfg.NATS.CA
	} else {
		var tls *auth.TLSFiles
		if cfg.NATS.CA != "" {
			tls = &auth.TLSFiles{CA: cfg.NATS.CA}
		}
		u.server, err = embed.Leaf(ctx, embed.LeafConfig{
			Node: cfg.Node, Tenant: cfg.Tenant, Creds: cfg.NATS.Creds, TLS: tls,
			Host: cfg.NATS.Host, ClientPort: cfg.NATS.Port, Workloads: cfg.NATS.Workloads, Hubs: hubs, Log: cfg.Log,
		})
		if err != nil {
			return nil, err
		}
		conn.Server = u.server
	}
	if u.conn, err = dial(ctx, conn); err != nil {
		return nil, err
	}
	u.source = &jetstream.Source{Conn: u.conn, Tenant: cfg.Tenant, Node: cfg.Node, Regions: names, Log: cfg.Log}
	return u, nil
}

// drain waits a bounded time until every region has counter-signed everything.
func (u *uplink) drain(node *edge.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainShipping)
	defer cancel()
	for _, b := range node.Journal().Boots() {
		if err := u.shipper.Wait(ctx, b.ID, b.Size, u.shipper.Everywhere()); err != nil {
			return fmt.Errorf("boot %s: %w", b.ID, err)
		}
	}
	return nil
}

// attach gives the uplink its node: records are shipped from it and questions
// that come over the bus are asked of it.
func (u *uplink) attach(ctx context.Context, node *edge.Node) (err error) {
	shipper, err := u.newShipper(node)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.shipper = shipper
	shipper.Retire(u.retired)
	u.mu.Unlock()
	if u.trimmer, err = u.newTrimmer(node); err != nil {
		return err
	}
	u.asked, err = natsapi.Serve(ctx, u.conn, u.cfg.Tenant, node)
	return err
}

// retire has regions count no more.
func (u *uplink) retire(regions []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired = regions; u.shipper != nil {
		u.shipper.Retire(regions)
	}
}

// Count, Await and Met are edge.Regions: the shipper is there before anybody asks.
func (u *uplink) Count() int { return len(u.cfg.Regions) }

func (u *uplink) Await(ctx context.Context, boot string, seq uint64, class policy.Durability) error {
	return u.shipper.Await(ctx, boot, seq, class)
}

func (u *uplink) Met(boot string, seq uint64) policy.Durability { return u.shipper.Met(boot, seq) }

func (u *uplink) newShipper(node *edge.Node) (*ship.Shipper, error) {
	key := node.LogKey()
	cfg := ship.Config{
		Node: u.cfg.Node, Key: key, Journal: running{node}, Log: u.cfg.Log,
		OnEvidence: func(e ship.Evidence) {
			node.RegionAhead(fmt.Sprintf("region %s holds boot %s up to %d, the journal up to %d", e.Region, e.Boot, e.RegionLast, e.JournalLast), e.RegionLast-e.JournalLast)
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

func (u *uplink) newTrimmer(node *edge.Node) (*ship.Trimmer, error) {
	return ship.NewTrimmer(ship.TrimConfig{
		Journal: running{node}, Shipper: u.shipper, Retention: u.cfg.Journal.Retention, MinReceipts: u.cfg.Journal.MinReceipts,
		OneReceipt: node.TrimOnOneReceipt, Record: node.Write, Log: u.cfg.Log,
	})
}

// running is the journal that the node has at the moment: after a disk failure
// it is another one.
type running struct{ node *edge.Node }

func (r running) Boots() []journal.Boot    { return r.node.Journal().Boots() }
func (r running) Changed() <-chan struct{} { return r.node.Journal().Changed() }
func (r running) Space() journal.Space     { return r.node.Journal().Space() }
func (r running) Segments(boot string) ([]journal.Segment, error) {
	return r.node.Journal().Segments(boot)
}
func (r running) Trim(boot string, through uint64) error { return r.node.Journal().Trim(boot, through) }
func (r running) ReadBatch(boot string, from uint64, records, bytes int) (*audit.Batch, error) {
	return r.node.Journal().ReadBatch(boot, from, records, bytes)
}

// live publishes a recorded decision where somebody listens, and nowhere else;
// whether anybody does is not known of servers that the user runs.
func (u *uplink) live(r *audit.Record, ref audit.Ref) {
	if r.Decision == nil {
		return
	}
	for _, form := range []jetstream.Form{jetstream.JSON, jetstream.CBOR} {
		subject := jetstream.LiveSubject(u.cfg.Tenant, form, u.cfg.Node, r.Decision.Verdict.String(), r.Decision.Point)
		if u.server != nil && !u.server.Interest(subject) {
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

// url is where workloads beside the edge connect; "" without a server of its own.
func (u *uplink) url() string {
	if u.server == nil {
		return ""
	}
	return u.server.ClientURL()
}

func (u *uplink) close() {
	if u.asked != nil {
		u.asked()
	}
	if u.conn != nil {
		u.conn.Close()
	}
	if u.server != nil {
		u.server.Shutdown()
	}
}
