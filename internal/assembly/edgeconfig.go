package assembly

import (
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// ReadEdgeConfig reads the YAML file of an edge. Unknown keys, wrong types and
// combinations that cannot work are a *ConfigError with the line.
func ReadEdgeConfig(file string) (EdgeConfig, error) {
	c := EdgeConfig{LogLevel: "info"}
	var listen string
	nats, kept := map[string]*yamlfile.Node{}, map[string]*yamlfile.Node{}
	f, err := readConfig(file, map[string]func(*configFile, *yamlfile.Node) error{
		"tenant": name(&c.Tenant), "node": name(&c.Node), "dir": path(&c.Dir), "listen": address(&c.Listen),
		"trust_root": root(&c.Root), "enrolment": fileBytes(&c.Enrolment), "secret": secretFile(&c.Secret), "folder": path(&c.Folder), "compiled": path(&c.Compiled), "log": logLevel(&c.LogLevel),
		"regions": func(f *configFile, n *yamlfile.Node) error {
			return f.Items(n, func(n *yamlfile.Node) error { return c.region(f, n) })
		},
		"journal": func(f *configFile, n *yamlfile.Node) error { return c.journal(f, n, kept) },
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
	if err := c.Journal.consistent(f, kept, &c); err != nil {
		return EdgeConfig{}, err
	}
	return c, c.consistent(f, nats)
}

// fileBytes keeps a file's content.
func fileBytes(into *[]byte) func(*configFile, *yamlfile.Node) error {
	return file(func(content []byte) error { *into = content; return nil })
}

// secretFile is the name of a file with the tenant's secret.
func secretFile(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := path(into)(f, n); err != nil {
			return err
		}
		if _, err := edge.LoadSecret(*into); err != nil {
			return f.Fail(n, "%v", err)
		}
		return nil
	}
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

func (c *EdgeConfig) journal(f *configFile, n *yamlfile.Node, seen map[string]*yamlfile.Node) error {
	return f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
		"retention": func(f *configFile, n *yamlfile.Node) error {
			return f.Duration(n, &c.Journal.Retention, time.Second, time.Second, maxRetention)
		},
		"quota": byteSize(&c.Journal.Quota, minQuota),
		"min_receipts": func(f *configFile, n *yamlfile.Node) error {
			var v uint64
			err := f.Uint(n, &v, 1, 16)
			c.Journal.MinReceipts = int(v)
			return err
		},
	})
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
