package assembly

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// A ServerPlace is a hub server of a fleet: where it runs and on which ports.
type ServerPlace struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Host    string `json:"host"`
	Client  int    `json:"client"`
	Leaf    int    `json:"leaf"`
	Cluster int    `json:"cluster"`
	Listen  int    `json:"listen"`
}

// Ports of a hub server that has a host to itself. With a base port of one's own
// they are that one and the three after it, in this order.
const (
	clientPort  = 4222
	leafPort    = 7422
	clusterPort = 6222
	listenPort  = 9180
)

// ParseServer reads REGION=HOST or REGION=HOST:BASEPORT; n is the number of the
// server in its region, from 1.
func ParseServer(s string, n int) (ServerPlace, error) {
	region, host, ok := strings.Cut(s, "=")
	p := ServerPlace{Region: region, Host: host, Client: clientPort, Leaf: leafPort, Cluster: clusterPort, Listen: listenPort}
	if h, base, err := net.SplitHostPort(host); err == nil {
		first, err := strconv.Atoi(base)
		if err != nil || first < 1 || first > 65532 {
			return p, fmt.Errorf("server %q: %q is no base port", s, base)
		}
		p.Host, p.Client, p.Leaf, p.Cluster, p.Listen = h, first, first+1, first+2, first+3
	}
	if !ok || bundle.CheckNode(region) != nil || p.Host == "" {
		return p, fmt.Errorf("server %q: want REGION=HOST or REGION=HOST:BASEPORT", s)
	}
	p.Name = region + "-" + strconv.Itoa(n)
	return p, nil
}

// NewFleet is what MakeFleet needs.
type NewFleet struct {
	Dir, Tenant string
	// TrustRoot is the path of the signed trust root, Heartbeats those of the
	// regions' heartbeat keys, by region.
	TrustRoot  string
	Heartbeats map[string]string
	// Servers are one or three of each of at most two regions.
	Servers []ServerPlace
}

// MakeFleet writes the administrative folder of a new fleet: the NATS operator,
// a certificate authority, an operator's credentials, and under hubs/ a folder
// for each hub server, with its configuration and all that it needs, to be taken
// to the server's machine. People's keys stay where they are.
func MakeFleet(c NewFleet) error {
	l := Layout{c.Dir}
	if _, err := os.Stat(l.Fleet()); err == nil {
		return fmt.Errorf("%s holds a fleet already", c.Dir)
	}
	rootEnvelope, err := readBounded(c.TrustRoot)
	if err != nil {
		return fmt.Errorf("trust root: %w", err)
	}
	root, err := bundle.OpenTrustRoot(rootEnvelope, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", c.TrustRoot, err)
	}
	if root.Tenant != c.Tenant {
		return fmt.Errorf("%s: the trust root is of tenant %q, not %q", c.TrustRoot, root.Tenant, c.Tenant)
	}
	m := &maker{NewFleet: c, layout: l, root: rootEnvelope, keys: &audit.Keys{}}
	if err := m.regionsOf(); err != nil {
		return err
	}
	for _, r := range m.regions {
		k, err := bundle.ReadPrivateKey(c.Heartbeats[r])
		if err != nil {
			return fmt.Errorf("heartbeat key of region %s: %w", r, err)
		}
		if k.Role != bundle.RoleHeartbeat || k.Person != r {
			return fmt.Errorf("heartbeat key of region %s: %s is of %s %s", r, c.Heartbeats[r], k.Role, k.Person)
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	return m.make()
}

// maker makes a fleet's folder.
type maker struct {
	NewFleet
	layout    Layout
	root      []byte
	regions   []string
	authority *auth.Authority
	ca        *auth.CA
	keys      *audit.Keys
	ledgers   map[string][]byte // key files of the regions' ledgers
	vkeys     map[string]string
}

func (m *maker) regionsOf() error {
	count := map[string]int{}
	for _, s := range m.Servers {
		if !slices.Contains(m.regions, s.Region) {
			m.regions = append(m.regions, s.Region)
		}
		count[s.Region]++
	}
	if len(m.regions) == 0 || len(m.regions) > 2 {
		return fmt.Errorf("%d regions; one or two", len(m.regions))
	}
	for _, r := range m.regions {
		if count[r] != 1 && count[r] != 3 {
			return fmt.Errorf("region %s has %d servers; one, or three of which any two suffice", r, count[r])
		}
	}
	return nil
}

func (m *maker) make() (err error) {
	if m.authority, err = openAuthority(m.layout, m.Tenant); err != nil {
		return err
	}
	if _, err := edge.LoadOrCreateSecret(m.layout.Secret()); err != nil {
		return err
	}
	if m.ca, err = auth.LoadOrCreateCA(m.layout.CA(), "holdfast "+m.Tenant); err != nil {
		return err
	}
	if _, err := issueOnce(m.authority, m.layout, m.Tenant, operatorUser, auth.Operator(m.Tenant, operatorUser)); err != nil {
		return err
	}
	if err := writeNew(m.layout.TrustRoot(), m.root); err != nil {
		return err
	}
	m.ledgers, m.vkeys = map[string][]byte{}, map[string]string{}
	for _, r := range m.regions {
		dir := m.layout.Region(r)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		vkey, err := makeKey(dir, RegionKeyFile, audit.RegionKeyName(m.Tenant, r))
		if err == nil {
			m.vkeys[r] = vkey
			m.ledgers[r], err = os.ReadFile(RegionKeyFile(dir))
		}
		if err = errors.Join(err, m.keys.AddRegion(vkey)); err != nil {
			return err
		}
	}
	if err := writeNew(m.layout.PublicKeys(), m.keys.File()); err != nil {
		return err
	}
	for _, s := range m.Servers {
		if err := m.server(s); err != nil {
			return fmt.Errorf("server %s: %w", s.Name, err)
		}
	}
	doc, err := json.MarshalIndent(description{Tenant: m.Tenant, Regions: m.regions, Nodes: []string{}, Servers: m.Servers, Ledgers: m.vkeys}, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(m.layout.Fleet(), append(doc, '\n')) // the last file: without it there is no fleet
}

// hubDoc is hub.yaml as it is written; config.go reads it.
type hubDoc struct {
	Region  string         `yaml:"region"`
	Server  string         `yaml:"server"`
	Dir     string         `yaml:"dir"`
	Listen  string         `yaml:"listen"`
	Peers   []string       `yaml:"peers,omitempty"`
	Tenants []hubTenantDoc `yaml:"tenants"`
	NATS    hubNATSDoc     `yaml:"nats"`
}

type hubTenantDoc struct {
	Name      string `yaml:"name"`
	Creds     string `yaml:"creds"`
	TrustRoot string `yaml:"trust_root"`
	Heartbeat string `yaml:"heartbeat_key"`
}

type hubNATSDoc struct {
	Trust   string            `yaml:"trust"`
	TLS     map[string]string `yaml:"tls"`
	Host    string            `yaml:"host"`
	Client  int               `yaml:"client_port"`
	Leaf    int               `yaml:"leaf_port"`
	Cluster int               `yaml:"cluster_port,omitempty"`
	Routes  []string          `yaml:"routes,omitempty"`
	Secret  string            `yaml:"cluster_secret,omitempty"`
	Links   []map[string]any  `yaml:"links,omitempty"`
}

// server writes the folder of one hub server. Its names are relative, so that
// the folder can be taken elsewhere.
func (m *maker) server(s ServerPlace) error {
	dir := m.layout.Hub(s.Name)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return err
	}
	tls, err := m.ca.Server(dir, "server", s.Host, "localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(tls.CA)
	if err != nil {
		return err
	}
	trust, err := m.authority.Trust()
	if err != nil {
		return err
	}
	trustDoc, err := json.MarshalIndent(trust, "", "  ")
	if err != nil {
		return err
	}
	heartbeat, err := os.ReadFile(m.Heartbeats[s.Region])
	if err != nil {
		return err
	}
	doc := hubDoc{
		Region: s.Region, Server: s.Name, Dir: "data", Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Listen)),
		Peers:   slices.DeleteFunc(slices.Clone(m.regions), func(r string) bool { return r == s.Region }),
		Tenants: []hubTenantDoc{{m.Tenant, "hub.creds", "trust-root.dsse", "heartbeat.key"}},
		NATS: hubNATSDoc{
			Trust: "nats-trust.json", TLS: map[string]string{"ca": "ca.pem", "cert": "server.pem", "key": "server.key"},
			Host: s.Host, Client: s.Client, Leaf: s.Leaf,
		},
	}
	secrets := map[string][]byte{"heartbeat.key": heartbeat, filepath.Join("data", "region.key"): m.ledgers[s.Region]}
	if err := m.credentials(dir, "hub.creds", s.Name, auth.Hub(m.Tenant, s.Name)); err != nil {
		return err
	}
	if err := m.cluster(&doc, s, dir, secrets); err != nil {
		return err
	}
	text, err := yamlfile.Marshal(doc)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"ca.pem": ca, "nats-trust.json": trustDoc, "trust-root.dsse": m.root, "hub.yaml": text} {
		if err := writeNew(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return writeSecrets(dir, secrets)
}

// cluster adds the routes among a region's servers, and the link of the second
// region to the first.
func (m *maker) cluster(doc *hubDoc, s ServerPlace, dir string, secrets map[string][]byte) error {
	var leafs []string
	for _, other := range m.Servers {
		if other.Region == s.Region {
			doc.NATS.Routes = append(doc.NATS.Routes, net.JoinHostPort(other.Host, strconv.Itoa(other.Cluster)))
		} else {
			leafs = append(leafs, net.JoinHostPort(other.Host, strconv.Itoa(other.Leaf)))
		}
	}
	if len(doc.NATS.Routes) > 1 {
		secret, err := m.clusterSecret(s.Region)
		if err != nil {
			return err
		}
		doc.NATS.Cluster, doc.NATS.Secret = s.Cluster, "cluster.secret"
		secrets["cluster.secret"] = secret
	} else {
		doc.NATS.Routes = nil
	}
	if s.Region == m.regions[0] || len(leafs) == 0 {
		return nil
	}
	doc.NATS.Links = []map[string]any{{"tenant": m.Tenant, "creds": "link.creds", "leafs": leafs}}
	return m.credentials(dir, "link.creds", "link-"+s.Region, auth.Link(m.Tenant))
}

// clusterSecret is the password that a region's servers share.
func (m *maker) clusterSecret(region string) ([]byte, error) {
	path := filepath.Join(m.layout.Region(region), "cluster.secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret = []byte(rand.Text() + "\n")
		err = os.WriteFile(path, secret, 0o600)
	}
	return secret, err
}

// credentials issues a user once for the fleet and puts its file into dir.
func (m *maker) credentials(dir, file, user string, may auth.Permissions) error {
	if _, err := issueOnce(m.authority, m.layout, m.Tenant, user, may); err != nil {
		return err
	}
	creds, err := os.ReadFile(m.layout.Creds(user))
	if err != nil {
		return err
	}
	return writeSecrets(dir, map[string][]byte{file: creds})
}

// writeSecrets writes files that only their owner reads.
func writeSecrets(dir string, secrets map[string][]byte) error {
	for name, content := range secrets {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
