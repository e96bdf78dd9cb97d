// Package regiontest starts regions of three hub servers, and what tests need
// around them: an authority, certificates, proxies on the links, edges.
package regiontest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A Fleet is two linked regions, ra and rb, of one authority.
type Fleet struct {
	Dir       string
	Authority *auth.Authority
	CA        *auth.CA
	A, B      *Region
}

// A Region is one region's hub servers, each behind a proxy for leafs.
type Region struct {
	Name    string
	Servers []*embed.Server
	Leafs   []*cut.Proxy // what edges and the other region connect to
	conf    []embed.HubConfig
}

// Start starts both regions, each of so many servers (1 or 3), for the tenants.
// Region rb is a leaf of ra. Everything ends with the test.
func Start(t testing.TB, servers int, tenants ...string) *Fleet {
	t.Helper()
	f := &Fleet{Dir: t.TempDir()}
	var err error
	if f.Authority, err = auth.Create(filepath.Join(f.Dir, "auth"), "bank"); err != nil {
		t.Fatal(err)
	}
	if f.CA, err = auth.LoadOrCreateCA(filepath.Join(f.Dir, "ca"), "bank"); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range tenants {
		if err := f.Authority.AddTenant(tenant, auth.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	f.A = f.start(t, "ra", servers, nil)
	var links []embed.Link
	for _, tenant := range tenants {
		links = append(links, embed.Link{Tenant: tenant, Creds: f.Creds(t, tenant, "link-rb", auth.Link(tenant)), URLs: f.A.LeafAddrs()})
	}
	f.B = f.start(t, "rb", servers, links)
	return f
}

// TLS makes a server certificate for loopback.
func (f *Fleet) TLS(t testing.TB, name string) *auth.TLSFiles {
	t.Helper()
	files, err := f.CA.Server(filepath.Join(f.Dir, "tls"), name, "127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return &files
}

// Creds issues a user and returns the path of its file.
func (f *Fleet) Creds(t testing.TB, tenant, name string, p auth.Permissions) string {
	t.Helper()
	path, _ := f.Issue(t, tenant, name, p)
	return path
}

// Issue is Creds, and returns the user's public key too.
func (f *Fleet) Issue(t testing.TB, tenant, name string, p auth.Permissions) (path, user string) {
	t.Helper()
	c, err := f.Authority.Issue(tenant, name, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(f.Dir, tenant+"-"+name+".creds")
	if err := c.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path, c.User
}

func (f *Fleet) start(t testing.TB, region string, servers int, links []embed.Link) *Region {
	t.Helper()
	trust, err := f.Authority.Trust()
	if err != nil {
		t.Fatal(err)
	}
	r := &Region{Name: region, Servers: make([]*embed.Server, servers)}
	ports := Ports(t, 3*servers)
	var routes []string
	for i := range servers {
		if servers > 1 {
			routes = append(routes, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[3*i])))
		}
		p, err := cut.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[3*i+1])))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		r.Leafs = append(r.Leafs, p)
	}
	for i := range servers {
		name := fmt.Sprint(region, "-", i+1)
		r.conf = append(r.conf, embed.HubConfig{
			Region: region, Name: name, Dir: filepath.Join(f.Dir, name), Trust: trust, TLS: f.TLS(t, name),
			ClusterPort: ports[3*i], LeafPort: ports[3*i+1], ClientPort: ports[3*i+2],
			Routes: routes, ClusterSecret: "routes", Links: links, Log: Log(t),
		})
	}
	t.Cleanup(r.stop)
	var starting sync.WaitGroup
	for i := range servers {
		starting.Go(func() { r.StartServer(t, i) })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return r
}

// StartServer starts the region's i-th server, also again after StopServer.
func (r *Region) StartServer(t testing.TB, i int) {
	s, err := embed.Hub(context.Background(), r.conf[i])
	if err != nil {
		t.Error(err)
		return
	}
	r.Servers[i] = s
}

// StopServer stops the region's i-th server.
func (r *Region) StopServer(i int) { r.Servers[i].Shutdown() }

func (r *Region) stop() {
	var stopping sync.WaitGroup
	for _, s := range r.Servers {
		if s != nil {
			stopping.Go(s.Shutdown)
		}
	}
	stopping.Wait()
}

// LeafAddrs are what leafs connect to.
func (r *Region) LeafAddrs() []string {
	var out []string
	for _, p := range r.Leafs {
		out = append(out, p.Addr())
	}
	return out
}

// Cut cuts every link to the region's servers from edges and the other region.
func (r *Region) Cut() {
	for _, p := range r.Leafs {
		p.Cut()
	}
}

// Heal ends Cut.
func (r *Region) Heal() {
	for _, p := range r.Leafs {
		p.Heal()
	}
}

// Hub connects as a hub server of the tenant to the region's i-th server, and to
// the others while that one is away.
func (f *Fleet) Hub(t testing.TB, r *Region, i int, tenant string) *bus.Conn {
	t.Helper()
	name := fmt.Sprint(r.Name, "-", i+1)
	var urls []string
	for j := range r.Servers {
		urls = append(urls, r.Servers[(i+j)%len(r.Servers)].ClientURL())
	}
	return Connect(t, bus.Config{URLs: urls, CA: f.CA.CAFile(), Creds: f.Creds(t, tenant, name, auth.Hub(tenant, name)), Name: "hub " + name})
}

// Edge starts a node's server at home in the first region given, and connects to it.
func (f *Fleet) Edge(t testing.TB, tenant, node string, regions ...*Region) (*embed.Server, *bus.Conn) {
	t.Helper()
	var hubs []string
	for _, r := range regions {
		hubs = append(hubs, r.LeafAddrs()...)
	}
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{
		Node: node, Tenant: tenant, Creds: f.Creds(t, tenant, node, auth.Edge(tenant, node)),
		TLS: &auth.TLSFiles{CA: f.CA.CAFile()}, Hubs: hubs, Log: Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s, Connect(t, bus.Config{Server: s, Name: "node " + node})
}

// Connect is bus.Connect for the length of the test.
func Connect(t testing.TB, c bus.Config) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// Until polls for a condition of other goroutines' making.
func Until(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}

// Ports are free at the moment: servers of a cluster must know each other's
// before they start, and keep them when they start again. They are below the
// range from which the system takes ports for whoever asks for any.
func Ports(t testing.TB, n int) []int {
	t.Helper()
	var out []int
	for tries := 0; len(out) < n; tries++ {
		if tries > 1000 {
			t.Fatal("no free ports")
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000))))
		if err != nil {
			continue
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}
