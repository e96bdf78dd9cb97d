package assembly

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// operatorUser is the user of the person who runs the fleet.
const operatorUser = "operator"

// transport makes what NATS needs, where it is missing: the operator with the
// tenant's account, the certificates of the hubs, and credentials of everybody.
func (h *Home) transport() error {
	if len(h.RegionNames()) == 0 {
		return nil
	}
	authority, err := openAuthority(h.layout, h.cfg.Tenant)
	if err != nil {
		return err
	}
	if h.natsTrust, err = authority.Trust(); err != nil {
		return err
	}
	ca, err := auth.LoadOrCreateCA(h.layout.CA(), "holdfast "+h.cfg.Tenant)
	if err != nil {
		return err
	}
	h.tls = map[string]*auth.TLSFiles{}
	for _, r := range h.RegionNames() {
		files, err := ca.Server(h.layout.Certificates(), r, "127.0.0.1", "::1", "localhost")
		if err != nil {
			return err
		}
		h.tls[r] = &files
	}
	users := map[string]auth.Permissions{operatorUser: auth.Operator(h.cfg.Tenant, operatorUser), "link": auth.Link(h.cfg.Tenant)}
	for _, r := range h.RegionNames() {
		users["hub-"+r] = auth.Hub(h.cfg.Tenant, r)
	}
	h.users = map[string]string{}
	for _, n := range h.NodeNames() {
		users[n] = auth.Edge(h.cfg.Tenant, n)
	}
	for name, may := range users {
		user, err := issueOnce(authority, h.layout, h.cfg.Tenant, name, may)
		if err != nil {
			return err
		}
		h.users[name] = user
	}
	return nil
}

// openAuthority opens the folder's NATS authority, or makes one with the tenant.
func openAuthority(l Layout, tenant string) (*auth.Authority, error) {
	authority, err := auth.Open(l.Authority())
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = auth.Create(l.Authority(), "holdfast")
	}
	if err != nil {
		return nil, err
	}
	if err := authority.AddTenant(tenant, auth.Limits{}); err != nil && !errors.Is(err, auth.ErrExists) {
		return nil, err
	}
	return authority, nil
}

// issueOnce makes a user's credentials unless they are there, and returns the
// user's public key.
func issueOnce(a *auth.Authority, l Layout, tenant, name string, may auth.Permissions) (user string, err error) {
	path := l.Creds(name)
	if file, err := os.ReadFile(path); err == nil {
		return auth.User(file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	c, err := a.Issue(tenant, name, may, 0)
	if err != nil {
		return "", err
	}
	return c.User, c.WriteFile(path)
}

// enrol signs the enrolment of every node that has none.
func (h *Home) enrol() error {
	secret, err := edge.LoadOrCreateSecret(h.layout.Secret())
	if err != nil {
		return err
	}
	for i, n := range h.NodeNames() {
		path := h.layout.Enrolment(n)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		_, vkey, err := journal.LoadOrCreateKey(edge.KeyFile(h.layout.Node(n)), audit.NodeKeyName(h.cfg.Tenant, n))
		if err != nil {
			return err
		}
		labels := map[string]string{"node": n}
		if names := h.RegionNames(); len(names) > 0 {
			labels["region"] = names[i%len(names)]
		}
		envelope, err := bundle.SignEnrolment(&bundle.Enrolment{
			Tenant: h.cfg.Tenant, Node: n, Serial: 1, LogKey: vkey, Labels: labels, User: h.users[n], Secret: secret.ID(), Created: time.Now().UnixNano(),
		}, h.private["enrol"])
		if err == nil {
			err = writeNew(path, envelope)
		}
		if err != nil {
			return fmt.Errorf("enrol %s: %w", n, err)
		}
	}
	return nil
}

// Enrolments are the envelopes of the nodes' enrolments, by node.
func (h *Home) Enrolments() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, n := range h.NodeNames() {
		envelope, err := os.ReadFile(h.layout.Enrolment(n))
		if err != nil {
			return nil, err
		}
		out[n] = envelope
	}
	return out, nil
}

// HubConfig is what a hub server of a region of the laptop's fleet needs, but
// for the addresses of other servers.
func (h *Home) HubConfig(region string) HubConfig {
	return HubConfig{
		Region: region, Dir: h.layout.Region(region), Trust: h.natsTrust, TLS: h.tls[region], Websocket: true,
		Tenants: []TenantConfig{{
			Name: h.cfg.Tenant, Creds: h.layout.Creds("hub-" + region), Root: h.root, Heartbeat: h.private["heartbeat-"+region], Keys: h.keys,
		}},
		Peers: slices.DeleteFunc(slices.Clone(h.RegionNames()), func(n string) bool { return n == region }),
		Log:   h.cfg.Log,
	}
}

// EdgeNATS is how a node of the laptop's fleet connects.
func (h *Home) EdgeNATS(node string) EdgeNATS {
	return EdgeNATS{Creds: h.layout.Creds(node), CA: h.layout.CAFile()}
}

// beatFolder says the heartbeats of a fleet without regions, as files of the
// folder from which its nodes take their releases.
func (h *Home) beatFolder(ctx context.Context) {
	tick := time.NewTicker(registry.AttestEvery)
	defer tick.Stop()
	for {
		if err := h.beat(time.Now()); err != nil {
			h.cfg.Log.Warn("heartbeat", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// folderHeartbeatLife is how far ahead the expiry of a folder's heartbeat is.
const folderHeartbeatLife = 15 * time.Minute

func (h *Home) beat(now time.Time) error {
	b := &bundle.Heartbeat{
		Tenant: h.cfg.Tenant, Region: localRegion, Serial: uint64(now.UnixNano()), Time: now.UnixNano(),
		Expires: now.Add(folderHeartbeatLife).UnixNano(), RootVersion: h.root.Version, Kills: new(bundle.KillSet).Digest(),
	}
	last, err := h.lastRelease()
	if err != nil {
		return err
	}
	if last != nil {
		b.Epoch, b.Release = last.Epoch, last.Digest
	}
	envelope, err := bundle.SignHeartbeat(b, h.private["heartbeat-"+localRegion])
	if err != nil {
		return err
	}
	return writeNew(filepath.Join(h.layout.Published(), "heartbeats", localRegion+".dsse"), envelope)
}
