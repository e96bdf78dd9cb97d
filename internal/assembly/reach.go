package assembly

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// ErrNoRegions means that a fleet has no hubs to talk to.
var ErrNoRegions = errors.New("the fleet has no regions")

// AdminOf is how the operator of the fleet kept in l reaches it: one that was
// made by MakeFleet, or one that `holdfast up` runs.
func AdminOf(l Layout) (AdminConfig, error) {
	d, err := readDescription(l)
	if err != nil {
		return AdminConfig{}, fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	if len(d.Regions) == 0 {
		return AdminConfig{}, fmt.Errorf("%s: %w: its nodes take releases from %s", l.Dir, ErrNoRegions, l.Published())
	}
	envelope, err := os.ReadFile(l.TrustRoot())
	if err != nil {
		return AdminConfig{}, err
	}
	cfg := AdminConfig{Tenant: d.Tenant, Creds: l.Creds(operatorUser), CA: l.CAFile(), Regions: d.Regions}
	// It may have expired: whoever publishes the next one must get in.
	if cfg.Root, err = bundle.ReopenTrustRoot(envelope); err != nil {
		return AdminConfig{}, err
	}
	for _, s := range d.Servers {
		cfg.URLs = append(cfg.URLs, "nats://"+net.JoinHostPort(s.Host, strconv.Itoa(s.Client)))
	}
	if len(d.Servers) == 0 {
		where, err := ReadWhere(l)
		if err != nil {
			return AdminConfig{}, err
		}
		for _, r := range where.Regions {
			cfg.URLs = append(cfg.URLs, r.NATS)
		}
	}
	return cfg, nil
}
