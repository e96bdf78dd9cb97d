package assembly

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

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
		"sweep": func(f *configFile, n *yamlfile.Node) error {
			return f.Duration(n, &c.Sweep, time.Millisecond, 100*time.Millisecond, time.Hour)
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
