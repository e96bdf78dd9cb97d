package assembly

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A hubHandle is a region of a fleet with the proxies on the links to it.
type hubHandle struct {
	name string
	key  string
	*Hub
	edges *cut.Proxy // every edge's link to this hub
	join  *cut.Proxy // this hub's link to the first one; nil for the first
}

// RegionInfo says where a region answers.
type RegionInfo struct {
	Name      string `json:"name"`
	NATS      string `json:"nats"`
	Websocket string `json:"websocket"`
}

// NodeInfo says where a node answers.
type NodeInfo struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	HTTP   string `json:"http"`
	NATS   string `json:"nats"`
}

func (f *Fleet) startHubs(ctx context.Context) error {
	for i, name := range f.RegionNames() {
		h := &hubHandle{name: name, key: f.vkeys[name]}
		f.hubs = append(f.hubs, h)
		cfg := f.HubConfig(name)
		if i > 0 {
			var err error
			if h.join, err = cut.New(f.hubs[0].Server().LeafAddr()); err != nil {
				return err
			}
			cfg.Links = []embed.Link{{Tenant: f.cfg.Tenant, Creds: f.layout.Creds("link"), URLs: []string{h.join.Addr()}}}
		}
		var err error
		if h.Hub, err = StartHub(ctx, cfg); err != nil {
			return err
		}
		if h.edges, err = cut.New(h.Server().LeafAddr()); err != nil {
			return err
		}
	}
	for _, h := range f.hubs {
		if err := h.WaitReady(ctx); err != nil {
			return err
		}
	}
	if len(f.hubs) == 0 {
		return nil
	}
	return f.storeEnrolments(ctx)
}

// storeEnrolments hands every node's enrolment to the first region, which the
// others copy.
func (f *Fleet) storeEnrolments(ctx context.Context) error {
	enrolments, err := f.Enrolments()
	if err != nil {
		return err
	}
	admin, err := f.Admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, envelope := range enrolments {
		if err := admin.Enrol(ctx, envelope); err != nil {
			return err
		}
	}
	return nil
}

// Admin connects as the operator of the fleet.
func (f *Fleet) Admin(ctx context.Context) (*Admin, error) {
	cfg := AdminConfig{
		Tenant: f.cfg.Tenant, Root: f.root, Creds: f.layout.Creds(operatorUser), CA: f.layout.CAFile(), Regions: f.RegionNames(), Log: f.cfg.Log,
	}
	for _, h := range f.hubs {
		cfg.URLs = append(cfg.URLs, h.Server().ClientURL())
	}
	return OpenAdmin(ctx, cfg)
}

func (h *hubHandle) link() RegionLink {
	return RegionLink{Name: h.name, Leafs: []string{h.edges.Addr()}, Key: h.key}
}

func (h *hubHandle) close() error {
	var errs []error
	if h.Hub != nil {
		errs = append(errs, h.Hub.Close())
	}
	for _, p := range []*cut.Proxy{h.edges, h.join} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// links are the proxies of every link that a region's hub has to others.
func (f *Fleet) links(region string) ([]*cut.Proxy, error) {
	i := slices.IndexFunc(f.hubs, func(h *hubHandle) bool { return h.name == region })
	if i < 0 {
		return nil, fmt.Errorf("no region %q; there are %v", region, f.RegionNames())
	}
	links := []*cut.Proxy{f.hubs[i].edges}
	for j, h := range f.hubs {
		if h.join != nil && (i == 0 || i == j) {
			links = append(links, h.join)
		}
	}
	return links, nil
}

// Cut closes the sockets of every link to a region's hub, and refuses new ones
// until Heal.
func (f *Fleet) Cut(region string) error {
	links, err := f.links(region)
	for _, l := range links {
		l.Cut()
	}
	return err
}

// Heal lets the links to a region's hub connect again.
func (f *Fleet) Heal(region string) error {
	links, err := f.links(region)
	for _, l := range links {
		l.Heal()
	}
	return err
}

// Publish is Home.Publish; with regions the release is then handed to the
// first one, over TCP, packages first. It returns before nodes have it in force.
func (f *Fleet) Publish(ctx context.Context, points []bundle.Point, packages map[wire.Digest][]byte) (Published, error) {
	if len(f.hubs) == 0 {
		return f.Home.Publish(points, packages)
	}
	return f.publish(points, packages, func(p Published, envelope []byte) (time.Time, error) {
		admin, err := f.Admin(ctx)
		if err != nil {
			return time.Time{}, err
		}
		defer admin.Close()
		files := make([][]byte, 0, len(packages))
		for _, file := range packages {
			files = append(files, file)
		}
		began := time.Now()
		_, _, err = admin.Publish(ctx, envelope, files...)
		return began, err
	})
}

// WaitCosigned returns when every region's ledger has counter-signed every
// record that every node's journal has on disk.
func (f *Fleet) WaitCosigned(ctx context.Context) error {
	for {
		behind := f.behind()
		if behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", behind, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// behind names a region that lacks records, or "".
func (f *Fleet) behind() string {
	for _, e := range f.edges {
		for _, boot := range e.Node().Journal().Boots() {
			for _, h := range f.hubs {
				if has := h.Ledger().Status().Cosigned[e.name][boot.ID]; has < boot.Size {
					return fmt.Sprintf("region %s has counter-signed %d of %d records of %s", h.name, has, boot.Size, e.name)
				}
			}
		}
	}
	return ""
}

// URLs are the base URLs of the nodes.
func (f *Fleet) URLs() []string {
	urls := make([]string, len(f.edges))
	for i, e := range f.edges {
		urls[i] = e.URL()
	}
	return urls
}

// RegionInfos says where the regions answer.
func (f *Fleet) RegionInfos() []RegionInfo {
	out := []RegionInfo{}
	for _, h := range f.hubs {
		out = append(out, RegionInfo{Name: h.name, NATS: h.Server().ClientURL(), Websocket: h.Server().WebsocketURL()})
	}
	return out
}

// NodeInfos says where the nodes answer.
func (f *Fleet) NodeInfos() []NodeInfo {
	out := []NodeInfo{}
	for _, e := range f.edges {
		out = append(out, NodeInfo{Name: e.name, Region: e.region, HTTP: e.URL(), NATS: e.NATS()})
	}
	return out
}
