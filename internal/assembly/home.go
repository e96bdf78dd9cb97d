package assembly

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// ErrOtherFleet is returned for a folder that holds a fleet of another shape.
var ErrOtherFleet = errors.New("the folder holds another fleet")

// A Home is what outlives a run of a fleet on one machine: its folder with the
// keys, the trust root and the releases that were published. Opening one starts
// nothing.
type Home struct {
	cfg       FleetConfig
	layout    Layout
	root      *bundle.TrustRoot
	signers   []*bundle.PrivateKey          // author, approver
	private   map[string]*bundle.PrivateKey // the laptop's, by file name
	keys      *audit.Keys
	natsTrust *auth.Trust
	tls       map[string]*auth.TLSFiles // of the hubs, by region
	users     map[string]string         // public keys of NATS users, by name
	vkeys     map[string]string         // public keys of the regions' ledgers, by name
}

// description is fleet.json: what a folder holds, for later commands.
type description struct {
	Tenant  string   `json:"tenant"`
	Regions []string `json:"regions"`
	Nodes   []string `json:"nodes"`
	// Servers are the hub servers of a fleet that runs elsewhere, Ledgers the
	// verifier keys of its regions' ledgers.
	Servers []ServerPlace     `json:"servers,omitempty"`
	Ledgers map[string]string `json:"ledgers,omitempty"`
}

// OpenHome makes or reads the home in cfg.Dir.
func OpenHome(cfg FleetConfig) (*Home, error) {
	if cfg.Regions < 0 || cfg.Regions > MaxRegions || cfg.Edges < 1 || cfg.Edges > MaxEdges {
		return nil, fmt.Errorf("%d regions and %d edges; 0 to %d regions, 1 to %d edges", cfg.Regions, cfg.Edges, MaxRegions, MaxEdges)
	}
	h := &Home{cfg: cfg, layout: Layout{cfg.Dir}}
	if err := h.prepare(); err != nil {
		return nil, fmt.Errorf("fleet in %s: %w", cfg.Dir, err)
	}
	return h, nil
}

func (h *Home) prepare() error {
	want := description{Tenant: h.cfg.Tenant, Regions: h.RegionNames(), Nodes: h.NodeNames()}
	if err := os.MkdirAll(filepath.Join(h.cfg.Dir, "keys"), 0o700); err != nil {
		return err
	}
	have, err := readDescription(h.layout)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case fmt.Sprint(have) != fmt.Sprint(want):
		return fmt.Errorf("%w: tenant %s, regions %v, nodes %v; use the same flags or another --dir", ErrOtherFleet, have.Tenant, have.Regions, have.Nodes)
	}
	if err := h.trust(); err != nil {
		return err
	}
	if err := h.publicKeys(); err != nil {
		return err
	}
	if err := h.transport(); err != nil {
		return err
	}
	if err := h.enrol(); err != nil {
		return err
	}
	doc, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(h.layout.Fleet(), append(doc, '\n'))
}

func readDescription(l Layout) (d description, err error) {
	doc, err := os.ReadFile(l.Fleet())
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return d, fmt.Errorf("%s: %w", l.Fleet(), err)
	}
	for _, name := range slices.Concat([]string{d.Tenant}, d.Regions, d.Nodes) {
		if !audit.ValidName(name) {
			return d, fmt.Errorf("%s: %q is not a name", l.Fleet(), name)
		}
	}
	return d, nil
}

// publicKeys makes every log and ledger key and writes the public ones.
func (h *Home) publicKeys() error {
	h.keys, h.vkeys = &audit.Keys{}, map[string]string{}
	for _, n := range h.NodeNames() {
		vkey, err := makeKey(h.layout.Node(n), edge.KeyFile, audit.NodeKeyName(h.cfg.Tenant, n))
		if err == nil {
			err = h.keys.AddNode(vkey)
		}
		if err != nil {
			return err
		}
	}
	for _, r := range h.RegionNames() {
		vkey, err := makeKey(h.layout.Region(r), RegionKeyFile, audit.RegionKeyName(h.cfg.Tenant, r))
		if err == nil {
			h.vkeys[r] = vkey
			err = h.keys.AddRegion(vkey)
		}
		if err != nil {
			return err
		}
	}
	return writeNew(h.layout.PublicKeys(), h.keys.File())
}

func makeKey(dir string, file func(dir string) string, name string) (vkey string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	_, vkey, err = journal.LoadOrCreateKey(file(dir), name)
	return vkey, err
}

// Key is one of the laptop's private keys, by the name of its file; nil for none.
func (h *Home) Key(name string) *bundle.PrivateKey { return h.private[name] }

// Root is the trust root that the fleet began with.
func (h *Home) Root() *bundle.TrustRoot { return h.root }

// RegionNames are the fleet's regions.
func (h *Home) RegionNames() []string { return regionNames[:h.cfg.Regions] }

// NodeNames are the fleet's nodes.
func (h *Home) NodeNames() []string {
	names := make([]string, h.cfg.Edges)
	for i := range names {
		names[i] = NodeName(i + 1)
	}
	return names
}

// Layout says where things are.
func (h *Home) Layout() Layout { return h.layout }

// Keys are the public keys of all nodes and regions.
func (h *Home) Keys() *audit.Keys { return h.keys }
