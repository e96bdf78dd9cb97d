package assembly

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
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
	names := f.RegionNames()
	if len(names) == 0 {
		return nil
	}
	login, err := loadOrCreateLogin(f.layout, f.cfg.Tenant)
	if err != nil {
		return err
	}
	f.login = login
	for i, name := range names {
		h := &hubHandle{name: name, key: f.vkeys[name]}
		f.hubs = append(f.hubs, h)
		cfg := HubConfig{
			Tenant: f.cfg.Tenant, Region: name, Dir: f.layout.Region(name), Login: login, Keys: f.keys, Log: f.cfg.Log,
			Peers: slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name }),
		}
		if i > 0 {
			if h.join, err = cut.New(f.hubs[0].Server().LeafAddr()); err != nil {
				return err
			}
			cfg.Join = h.join.Addr()
		}
		if h.Hub, err = StartHub(ctx, cfg); err != nil {
			return err
		}
		if h.edges, err = cut.New(h.Server().LeafAddr()); err != nil {
			return err
		}
	}
	return nil
}

func (h *hubHandle) link() RegionLink {
	return RegionLink{Name: h.name, Leaf: h.edges.Addr(), Key: h.key}
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
		conn, err := bus.Connect(ctx, bus.Config{
			URL: f.hubs[0].Server().ClientURL(), User: f.login.User, Password: f.login.Password, Name: "publisher", Log: f.cfg.Log,
		})
		if err != nil {
			return time.Time{}, err
		}
		defer conn.Close()
		files := make([][]byte, 0, len(packages))
		for _, file := range packages {
			files = append(files, file)
		}
		began := time.Now()
		return began, jetstream.Region{Conn: conn, Tenant: f.cfg.Tenant, Name: f.hubs[0].name}.Publish(ctx, p.Epoch, envelope, files...)
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

// loadOrCreateLogin keeps the password of the fleet's NATS user in a file that
// only its owner reads.
func loadOrCreateLogin(l Layout, tenant string) (Login, error) {
	login := Login{Tenant: tenant, User: tenant}
	secret, err := os.ReadFile(l.Login())
	if errors.Is(err, fs.ErrNotExist) {
		secret = []byte(rand.Text())
		err = os.WriteFile(l.Login(), secret, 0o600)
	}
	login.Password = strings.TrimSpace(string(secret))
	return login, err
}

// Login is where the password of the fleet's NATS user is.
func (l Layout) Login() string { return filepath.Join(l.Dir, "keys", "nats.password") }
