package embed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// object is a block of the server's configuration language, which takes JSON.
// It exists in memory only: it may hold secrets.
type object map[string]any

func (c *HubConfig) config() (object, error) {
	leafs := object{"host": host(c.Host), "port": port(c.LeafPort), "no_advertise": true}
	conf := object{
		"server_name": c.name(),
		"host":        host(c.Host),
		"port":        port(c.ClientPort),
		"jetstream": object{
			"domain": c.Region, "store_dir": c.Dir, "sync_interval": "always", "max_mem": maxMemory, "max_file": maxFile,
		},
		"max_payload":   MaxPayload,
		"ping_interval": pingEvery,
		"ping_max":      pingsMissed,
		"leafnodes":     leafs,
	}
	tls := serverTLS(c.TLS)
	if tls != nil {
		conf["tls"], leafs["tls"] = tls, tls
	}
	if c.Websocket {
		ws := object{"host": host(c.Host), "port": port(c.WebsocketPort)}
		if tls != nil {
			ws["tls"] = tls
		} else {
			ws["no_tls"] = true
		}
		conf["websocket"] = ws
	}
	if len(c.Routes) > 0 {
		conf["cluster"] = c.cluster()
	}
	if c.Trust == nil {
		if c.Join != "" {
			leafs["reconnect"] = reconnectAt
			leafs["remotes"] = []object{remote(c.Login.Tenant, loginURLs(c.Login, c.Join), "", c.TLS)}
		}
		conf["system_account"] = "SYS"
		conf["accounts"] = object{
			"SYS":          object{},
			c.Login.Tenant: object{"jetstream": "enabled", "users": []object{{"user": c.Login.User, "password": c.Login.Password}}},
		}
		return conf, nil
	}
	return conf, c.trusting(conf, leafs)
}

// trusting adds the operator, the accounts and the links to other regions.
func (c *HubConfig) trusting(conf, leafs object) error {
	dir := filepath.Join(c.Dir, "accounts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	preload := object{}
	for _, token := range c.Trust.Accounts {
		_, key, err := c.Trust.AccountOf(token)
		if err != nil {
			return err
		}
		preload[key] = token // the server keeps a newer one that it has
	}
	conf["operator"], conf["system_account"] = c.Trust.Operator, c.Trust.System
	conf["resolver"] = object{"type": "full", "dir": dir, "allow_delete": false, "interval": "1m", "limit": 10_000}
	conf["resolver_preload"] = preload
	if len(c.Links) == 0 {
		return nil
	}
	var remotes []object
	for _, l := range c.Links {
		key, err := c.Trust.Account(l.Tenant)
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		remotes = append(remotes, remote(key, leafURLs(nil, l.URLs...), l.Creds, c.TLS))
	}
	leafs["reconnect"], leafs["remotes"] = reconnectAt, remotes
	return nil
}

func (c *HubConfig) cluster() object {
	out := object{"name": c.Region, "host": host(c.Host), "port": port(c.ClusterPort), "no_advertise": true}
	var user *url.Userinfo
	if c.ClusterSecret != "" {
		user = url.UserPassword(c.Region, c.ClusterSecret)
		out["authorization"] = object{"user": c.Region, "password": c.ClusterSecret}
	}
	if t := serverTLS(c.TLS); t != nil {
		t["verify"] = true // routes know one another by certificate
		out["tls"] = t
	}
	var routes []string
	for _, addr := range c.Routes {
		routes = append(routes, (&url.URL{Scheme: "nats-route", User: user, Host: addr}).String())
	}
	out["routes"] = routes
	return out
}

func (c *LeafConfig) config(secret string) object {
	tenant := c.tenant()
	users := []object{{"user": own, "password": secret}}
	if c.Creds == "" {
		users = append(users, object{"user": c.Login.User, "password": c.Login.Password})
	}
	for _, u := range c.Workloads {
		p := auth.Workload(tenant, u.Name)
		users = append(users, object{"user": u.Name, "password": u.Password, "permissions": object{
			"publish": p.PublishSubjects(), "subscribe": p.SubscribeSubjects(),
		}})
	}
	conf := object{
		"server_name":    c.Node,
		"host":           host(c.Host),
		"port":           port(c.ClientPort),
		"max_payload":    MaxPayload,
		"ping_interval":  pingEvery,
		"ping_max":       pingsMissed,
		"system_account": "SYS",
		"accounts":       object{"SYS": object{}, tenant: object{"users": users}},
	}
	if t := serverTLS(c.ListenTLS); t != nil {
		conf["tls"] = t
	}
	if len(c.Hubs) > 0 {
		urls := leafURLs(nil, c.Hubs...)
		if c.Creds == "" {
			urls = loginURLs(c.Login, c.Hubs...)
		}
		conf["leafnodes"] = object{"reconnect": reconnectAt, "remotes": []object{remote(tenant, urls, c.Creds, c.TLS)}}
	}
	return conf
}

// remote is one remote with every URL: two remotes into one account make loops.
// It keeps to these URLs, whatever a hub says of others.
func remote(account string, urls []string, creds string, tls *auth.TLSFiles) object {
	r := object{
		"urls": urls, "account": account, "no_randomize": true, "ignore_discovered_servers": true,
		"first_info_timeout": connectLimit, "dial_timeout": connectLimit,
	}
	if creds != "" {
		r["credentials"] = creds
	}
	if tls != nil {
		r["tls"] = object{"ca_file": tls.CA, "min_version": "1.3", "timeout": 2}
	}
	return r
}

func leafURLs(user *url.Userinfo, addrs ...string) []string {
	urls := make([]string, len(addrs))
	for i, a := range addrs {
		urls[i] = leafURL(a, user)
	}
	return urls
}

func loginURLs(l Login, addrs ...string) []string {
	return leafURLs(url.UserPassword(l.User, l.Password), addrs...)
}

func serverTLS(t *auth.TLSFiles) object {
	if t == nil {
		return nil
	}
	return object{"cert_file": t.Cert, "key_file": t.Key, "ca_file": t.CA, "min_version": "1.3", "timeout": 2}
}

func host(h string) string {
	if h == "" {
		return "127.0.0.1"
	}
	return h
}

// port translates our 0 into the server's word for a free port.
func port(p int) int {
	if p == 0 {
		return server.RANDOM_PORT
	}
	return p
}

func options(conf object) (*server.Options, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // the server's language has no \u escapes
	if err := enc.Encode(conf); err != nil {
		return nil, err
	}
	opts := &server.Options{NoSigs: true}
	if err := opts.ProcessConfigString(text.String()); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return opts, nil
}
