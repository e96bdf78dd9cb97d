package assembly

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A ConfigError says what is wrong with a configuration file, and where.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// maxConfig bounds a configuration file and each file that it names, in bytes.
const maxConfig = 1 << 20

// configFile is a configuration while it is read. Relative paths are relative to
// the file; deploy/edge.yaml and deploy/hub.yaml have every key.
type configFile struct {
	*yamlfile.File
	base string
	keys map[string]*yamlfile.Node // where each key of the root stands
	root *yamlfile.Node
}

// readConfig reads a file's keys, each with its reader; required ones must be there.
func readConfig(path string, readers map[string]func(*configFile, *yamlfile.Node) error, required ...string) (*configFile, error) {
	raw, err := readBounded(path)
	if err != nil {
		return nil, &ConfigError{err}
	}
	f := &configFile{File: &yamlfile.File{Name: path}, base: filepath.Dir(path), keys: map[string]*yamlfile.Node{}}
	if f.root, err = f.Parse(raw); err == nil && f.root == nil {
		err = fmt.Errorf("%s: the file is empty", path)
	}
	if err == nil {
		err = f.members(f.root, f.keys, readers, required...)
	}
	if err != nil {
		return nil, &ConfigError{err}
	}
	return f, nil
}

// members reads a mapping whose keys are those of readers.
func (f *configFile) members(n *yamlfile.Node, seen map[string]*yamlfile.Node, readers map[string]func(*configFile, *yamlfile.Node) error, required ...string) error {
	err := f.Members(n, func(key, value *yamlfile.Node) error {
		read, ok := readers[key.Value]
		if !ok {
			names := make([]string, 0, len(readers))
			for name := range readers {
				names = append(names, name)
			}
			slices.Sort(names)
			return f.Fail(key, "unknown key %q; want one of %s", key.Value, strings.Join(names, ", "))
		}
		if seen != nil {
			seen[key.Value] = key
		}
		return named(key.Value, read(f, value))
	})
	if err != nil {
		return err
	}
	for _, name := range required {
		if seen[name] == nil {
			return f.Fail(n, "%s is missing", name)
		}
	}
	return nil
}

// named says of which key an error is.
func named(key string, err error) error {
	var e *yamlfile.Error
	if errors.As(err, &e) {
		e.Reason = key + ": " + e.Reason
	}
	return err
}

// fail is an error at a key of the root, or at the file's beginning.
func (f *configFile) fail(key, format string, args ...any) error {
	n := f.keys[key]
	if n == nil {
		n = f.root
	}
	return &ConfigError{f.Fail(n, format, args...)}
}

// The readers of single values.

func name(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !audit.ValidName(*into) {
			return f.Fail(n, "%q: 1 to 64 letters, digits, dashes and underscores", *into)
		}
		return nil
	}
}

func names(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			*into = append(*into, "")
			err := name(&s)(f, n)
			(*into)[len(*into)-1] = s
			return err
		})
	}
}

// path reads the name of a file or folder.
func path(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !filepath.IsAbs(*into) {
			*into = filepath.Join(f.base, *into)
		}
		return nil
	}
}

// file reads a file that the configuration names, and hands its content on.
func file(take func([]byte) error) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var p string
		if err := path(&p)(f, n); err != nil {
			return err
		}
		content, err := readBounded(p)
		if err == nil {
			err = take(content)
		}
		if err != nil {
			return f.Fail(n, "%v", err)
		}
		return nil
	}
}

// existing is path for a file that must be readable.
func existing(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return file(func([]byte) error { return path(into)(f, n) })(f, n)
	}
}

func address(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(*into)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return f.Fail(n, "%q is not host:port", *into)
		}
		return nil
	}
}

func addresses(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			err := address(&s)(f, n)
			*into = append(*into, s)
			return err
		})
	}
}

func urls(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			if err := f.Filled(n, &s); err != nil {
				return err
			}
			u, err := url.Parse(s)
			if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				return f.Fail(n, "not a nats://, tls://, ws:// or wss:// URL")
			}
			if u.User != nil {
				return f.Fail(n, "a user in the URL; credentials go into creds")
			}
			*into = append(*into, s)
			return nil
		})
	}
}

func port(into *int) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var v uint64
		err := f.Uint(n, &v, 0, 65535)
		*into = int(v)
		return err
	}
}

func truth(into *bool) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if n = yamlfile.Resolve(n); n.Tag != "!!bool" || n.Decode(into) != nil {
			return f.Fail(n, "true or false")
		}
		return nil
	}
}

func root(into **bundle.TrustRoot) func(*configFile, *yamlfile.Node) error {
	return file(func(envelope []byte) (err error) {
		*into, err = bundle.OpenTrustRoot(envelope, time.Now())
		return err
	})
}

// keyIn reads a private key of one role.
func keyIn(role bundle.Role, into **bundle.PrivateKey) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var p string
		if err := path(&p)(f, n); err != nil {
			return err
		}
		k, err := bundle.ReadPrivateKey(p)
		if err == nil && k.Role != role {
			err = fmt.Errorf("%s is a key of role %s, not %s", p, k.Role, role)
		}
		if err != nil {
			return f.Fail(n, "%v", err)
		}
		*into = k
		return nil
	}
}

func secretIn(into *string) func(*configFile, *yamlfile.Node) error {
	return file(func(content []byte) error {
		if *into = strings.TrimSpace(string(content)); *into == "" {
			return errors.New("the file is empty")
		}
		return nil
	})
}

func tlsFiles(into **auth.TLSFiles) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		files := &auth.TLSFiles{}
		*into = files
		seen := map[string]*yamlfile.Node{}
		return f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
			"ca": existing(&files.CA), "cert": existing(&files.Cert), "key": existing(&files.Key),
		}, "ca", "cert", "key")
	}
}

func logLevel(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, *into) {
			return f.Fail(n, "%q; debug, info, warn or error", *into)
		}
		return nil
	}
}

// ReadEdgeConfig reads the YAML file of an edge. Unknown keys, wrong types and
// combinations that cannot work are a *ConfigError with the line.
func ReadEdgeConfig(file string) (EdgeConfig, error) {
	c := EdgeConfig{LogLevel: "info"}
	var listen string
	nats := map[string]*yamlfile.Node{}
	f, err := readConfig(file, map[string]func(*configFile, *yamlfile.Node) error{
		"tenant": name(&c.Tenant), "node": name(&c.Node), "dir": path(&c.Dir), "listen": address(&c.Listen),
		"trust_root": root(&c.Root), "enrolment": fileBytes(&c.Enrolment), "folder": path(&c.Folder), "compiled": path(&c.Compiled), "log": logLevel(&c.LogLevel),
		"regions": func(f *configFile, n *yamlfile.Node) error {
			return f.Items(n, func(n *yamlfile.Node) error { return c.region(f, n) })
		},
		"nats": func(f *configFile, n *yamlfile.Node) error {
			return f.members(n, nats, map[string]func(*configFile, *yamlfile.Node) error{
				"creds": existing(&c.NATS.Creds), "ca": existing(&c.NATS.CA), "urls": urls(&c.NATS.URLs), "listen": address(&listen),
				"workloads": func(f *configFile, n *yamlfile.Node) error {
					return f.Items(n, func(n *yamlfile.Node) error { return c.workload(f, n) })
				},
			}, "creds")
		},
	}, "tenant", "node", "dir", "listen", "trust_root")
	if err != nil {
		return EdgeConfig{}, err
	}
	if listen != "" {
		host, p, _ := net.SplitHostPort(listen)
		c.NATS.Host = host
		c.NATS.Port, _ = strconv.Atoi(p)
	}
	return c, c.consistent(f, nats)
}

// fileBytes keeps a file's content.
func fileBytes(into *[]byte) func(*configFile, *yamlfile.Node) error {
	return file(func(content []byte) error { *into = content; return nil })
}

func (c *EdgeConfig) region(f *configFile, n *yamlfile.Node) error {
	r, seen := RegionLink{}, map[string]*yamlfile.Node{}
	err := f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"name": name(&r.Name), "leafs": addresses(&r.Leafs),
		"key": func(f *configFile, n *yamlfile.Node) error {
			if err := f.Filled(n, &r.Key); err != nil {
				return err
			}
			if _, err := note.NewVerifier(r.Key); err != nil {
				return f.Fail(n, "not the verifier key of a ledger: %v", err)
			}
			return nil
		},
	}, "name", "key")
	if err == nil && slices.ContainsFunc(c.Regions, func(have RegionLink) bool { return have.Name == r.Name }) {
		err = f.Fail(n, "region %s twice", r.Name)
	}
	c.Regions = append(c.Regions, r)
	return err
}

func (c *EdgeConfig) workload(f *configFile, n *yamlfile.Node) error {
	u, seen := embed.User{}, map[string]*yamlfile.Node{}
	err := f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"user": name(&u.Name), "password_file": secretIn(&u.Password),
	}, "user", "password_file")
	c.NATS.Workloads = append(c.NATS.Workloads, u)
	return err
}

// consistent refuses combinations that cannot work.
func (c *EdgeConfig) consistent(f *configFile, nats map[string]*yamlfile.Node) error {
	switch {
	case c.Root.Tenant != c.Tenant:
		return f.fail("trust_root", "the trust root is of tenant %q, not %q", c.Root.Tenant, c.Tenant)
	case c.Folder == "" && len(c.Regions) == 0:
		return f.fail("", "give either folder or regions: where releases come from")
	case c.Folder != "" && len(c.Regions) > 0:
		return f.fail("folder", "give either folder or regions: where releases come from")
	case c.Folder != "" && f.keys["nats"] != nil:
		return f.fail("nats", "an edge with a folder has no use for nats")
	case len(c.Regions) > 0 && f.keys["nats"] == nil:
		return f.fail("regions", "nats is missing: regions are reached with creds")
	}
	if c.Folder != "" {
		if info, err := os.Stat(c.Folder); err != nil || !info.IsDir() {
			return f.fail("folder", "%s is not a folder of published releases", c.Folder)
		}
	}
	if len(c.NATS.URLs) > 0 && nats["listen"] != nil {
		return &ConfigError{f.Fail(nats["listen"], "an edge that is a client of your servers (urls) has no server of its own")}
	}
	if len(c.NATS.URLs) > 0 && nats["workloads"] != nil {
		return &ConfigError{f.Fail(nats["workloads"], "workloads connect to your servers (urls), where you make their users")}
	}
	for _, r := range c.Regions {
		switch {
		case len(c.NATS.URLs) == 0 && len(r.Leafs) == 0:
			return f.fail("regions", "region %s has no leafs, and nats has no urls: it cannot be reached", r.Name)
		case len(c.NATS.URLs) > 0 && len(r.Leafs) > 0:
			return f.fail("regions", "region %s has leafs, and nats has urls: an edge is either a leaf node or a client", r.Name)
		}
	}
	return nil
}

// ReadHubConfig reads the YAML file of a hub server. Unknown keys, wrong types
// and combinations that cannot work are a *ConfigError with the line.
func ReadHubConfig(file string) (HubConfig, error) {
	c := HubConfig{LogLevel: "info", Host: "127.0.0.1"}
	nats := map[string]*yamlfile.Node{}
	f, err := readConfig(file, map[string]func(*configFile, *yamlfile.Node) error{
		"region": name(&c.Region), "server": name(&c.Server), "dir": path(&c.Dir), "listen": address(&c.Listen), "peers": names(&c.Peers),
		"log": logLevel(&c.LogLevel),
		"heartbeat": func(f *configFile, n *yamlfile.Node) error {
			return f.Duration(n, &c.Beat, time.Millisecond, 100*time.Millisecond, time.Minute)
		},
		"alarms": func(f *configFile, n *yamlfile.Node) error {
			return f.members(n, nil, map[string]func(*configFile, *yamlfile.Node) error{"webhook": webhook(&c.Webhook)})
		},
		"tenants": func(f *configFile, n *yamlfile.Node) error {
			return f.Items(n, func(n *yamlfile.Node) error { return c.tenant(f, n) })
		},
		"nats": func(f *configFile, n *yamlfile.Node) error { return c.readNATS(f, n, nats) },
	}, "region", "dir", "tenants", "nats")
	if err != nil {
		return HubConfig{}, err
	}
	return c, c.consistent(f, nats)
}

func webhook(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if u, err := url.Parse(*into); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return f.Fail(n, "not an http or https URL")
		}
		return nil
	}
}

func (c *HubConfig) readNATS(f *configFile, n *yamlfile.Node, seen map[string]*yamlfile.Node) error {
	var host string
	return f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"trust": file(func(content []byte) error {
			c.Trust = &auth.Trust{}
			if err := json.Unmarshal(content, c.Trust); err != nil {
				return fmt.Errorf("not the trust of a NATS operator: %w", err)
			}
			return nil
		}),
		"tls": tlsFiles(&c.TLS),
		"host": func(f *configFile, n *yamlfile.Node) error {
			err := f.Filled(n, &host)
			c.Host = host
			return err
		},
		"client_port": port(&c.ClientPort), "leaf_port": port(&c.LeafPort), "cluster_port": port(&c.ClusterPort),
		"websocket_port": func(f *configFile, n *yamlfile.Node) error { c.Websocket = true; return port(&c.WebsocketPort)(f, n) },
		"routes":         addresses(&c.Routes), "cluster_secret": secretIn(&c.ClusterSecret),
		"links": func(f *configFile, n *yamlfile.Node) error {
			return f.Items(n, func(n *yamlfile.Node) error { return c.link(f, n) })
		},
		"urls": urls(&c.URLs), "ca": existing(&c.CA), "no_domain": truth(&c.NoDomain),
		"replicas": func(f *configFile, n *yamlfile.Node) error {
			var v uint64
			err := f.Uint(n, &v, 1, 5)
			c.Replicas = int(v)
			return err
		},
	})
}

func (c *HubConfig) link(f *configFile, n *yamlfile.Node) error {
	l, seen := embed.Link{}, map[string]*yamlfile.Node{}
	err := f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"tenant": name(&l.Tenant), "creds": existing(&l.Creds), "leafs": addresses(&l.URLs),
	}, "tenant", "creds", "leafs")
	c.Links = append(c.Links, l)
	return err
}

func (c *HubConfig) tenant(f *configFile, n *yamlfile.Node) error {
	t, seen := TenantConfig{}, map[string]*yamlfile.Node{}
	err := f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"name": name(&t.Name), "creds": existing(&t.Creds), "trust_root": root(&t.Root), "heartbeat_key": keyIn(bundle.RoleHeartbeat, &t.Heartbeat),
		"public_keys": file(func(content []byte) (err error) { t.Keys, err = audit.ParseKeys(content); return err }),
	}, "name", "creds", "trust_root")
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(c.Tenants, func(have TenantConfig) bool { return have.Name == t.Name }):
		return f.Fail(n, "tenant %s twice", t.Name)
	case t.Root.Tenant != t.Name:
		return f.Fail(seen["trust_root"], "the trust root is of tenant %q, not %q", t.Root.Tenant, t.Name)
	case t.Heartbeat == nil && t.Root.HasRole(bundle.RoleHeartbeat):
		return f.Fail(n, "heartbeat_key is missing: the trust root of %s wants heartbeats, without which its nodes stop when their lease is over", t.Name)
	}
	c.Tenants = append(c.Tenants, t)
	return nil
}

// consistent refuses combinations that cannot work.
func (c *HubConfig) consistent(f *configFile, nats map[string]*yamlfile.Node) error {
	fail := func(key, format string, args ...any) error {
		n := nats[key]
		if n == nil {
			n = f.keys["nats"]
		}
		return &ConfigError{f.Fail(n, format, args...)}
	}
	if len(c.Tenants) == 0 {
		return f.fail("tenants", "at least one tenant")
	}
	for _, t := range c.Tenants {
		if t.Heartbeat != nil && t.Heartbeat.Person != c.Region {
			return f.fail("tenants", "tenant %s: the heartbeat key is that of region %s, not %s", t.Name, t.Heartbeat.Person, c.Region)
		}
	}
	if slices.Contains(c.Peers, c.Region) {
		return f.fail("peers", "%s is this region itself", c.Region)
	}
	if len(c.URLs) > 0 {
		for _, key := range []string{"trust", "tls", "host", "client_port", "leaf_port", "cluster_port", "websocket_port", "routes", "cluster_secret", "links"} {
			if nats[key] != nil {
				return fail(key, "%s is for an embedded server, and urls says that you run the servers", key)
			}
		}
		return nil
	}
	for _, key := range []string{"ca", "no_domain"} {
		if nats[key] != nil {
			return fail(key, "%s is for servers that you run: it goes with urls", key)
		}
	}
	switch {
	case c.Trust == nil:
		return fail("", "give either trust, for an embedded server, or urls of servers that you run")
	case c.TLS == nil && !loopback(c.Host):
		return fail("host", "%s is not loopback, and there is no tls", c.Host)
	case len(c.Routes) == 2:
		return fail("routes", "two servers agree on nothing when one is away; a region has one or three")
	case len(c.Routes) > 1 && (c.ClusterPort == 0 || c.Server == ""):
		return fail("routes", "a region of several servers needs cluster_port, and server: a name for each")
	case len(c.Routes) > 1 && c.ClusterSecret == "":
		return fail("routes", "cluster_secret is missing: the file with the password that the region's servers share")
	case c.ClusterPort != 0 && len(c.Routes) < 2:
		return fail("cluster_port", "routes are missing: the cluster addresses of the region's servers")
	case c.Replicas > 1 && len(c.Routes) < c.Replicas:
		return fail("replicas", "%d replicas on %d servers", c.Replicas, max(1, len(c.Routes)))
	}
	for _, l := range c.Links {
		if !slices.ContainsFunc(c.Tenants, func(t TenantConfig) bool { return t.Name == l.Tenant }) {
			return fail("links", "a link of tenant %s, which is not among tenants", l.Tenant)
		}
	}
	tenants, err := c.Trust.Tenants()
	if err != nil {
		return fail("trust", "%v", err)
	}
	for _, t := range c.Tenants {
		if _, ok := tenants[t.Name]; !ok {
			return fail("trust", "the NATS operator has no account for tenant %s", t.Name)
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readBounded reads a regular file of at most maxConfig bytes.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxConfig:
		return nil, fmt.Errorf("%s: %d bytes; at most %d", path, info.Size(), maxConfig)
	}
	return os.ReadFile(path)
}
