package release

import (
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func (r *reader) rings(n *yamlfile.Node) error {
	return r.file.Items(n, func(n *yamlfile.Node) error {
		g := bundle.Ring{Percent: 100}
		err := r.file.Members(n, func(key, n *yamlfile.Node) error {
			switch key.Value {
			case "name":
				return r.checked(n, &g.Name, bundle.CheckNode)
			case "labels":
				return r.file.Words(n, &g.Labels)
			case "percent":
				return r.file.Uint(n, &g.Percent, 1, 100)
			case "shadow":
				return r.bake(n, &g.Shadow)
			case "bake":
				return r.bake(n, &g.Bake)
			}
			return r.file.Fail(key, "unknown key %q: want name, labels, percent, shadow or bake", key.Value)
		})
		if err == nil && g.Name == "" {
			err = r.file.Fail(n, "a ring has a name")
		}
		r.draft.Release.Rings = append(r.draft.Release.Rings, g)
		return err
	})
}

func (r *reader) bake(n *yamlfile.Node, into *bundle.Bake) error {
	err := r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "decisions":
			return r.file.Uint(n, &into.Decisions, 1, 1<<40)
		case "for":
			return r.seconds(n, &into.Seconds, 1)
		}
		return r.file.Fail(key, "unknown key %q: want decisions or for", key.Value)
	})
	if err == nil && into.IsZero() {
		err = r.file.Fail(n, "neither decisions nor for: leave it out when nothing is waited for")
	}
	return err
}

func (r *reader) halt(n *yamlfile.Node) error {
	h := &r.draft.Release.Halt
	return r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "traps":
			return r.file.Share(n, &h.TrapsPerMillion)
		case "drift":
			return r.file.Share(n, &h.DriftPerMillion)
		case "deny":
			return r.file.Share(n, &h.DenyPerMillion)
		case "latency":
			var d time.Duration
			err := r.file.Duration(n, &d, time.Microsecond, time.Microsecond, time.Minute)
			h.LatencyMicros = uint64(d.Microseconds())
			return err
		case "min_decisions":
			return r.file.Uint(n, &h.MinDecisions, 1, 1<<40)
		}
		return r.file.Fail(key, "unknown key %q: want traps, drift, deny, latency or min_decisions", key.Value)
	})
}

func (r *reader) staleness(n *yamlfile.Node) error {
	s := &r.draft.Release.Staleness
	return r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "aging":
			return r.seconds(n, &s.AgingSeconds, 1)
		case "regions":
			return r.file.Uint(n, &s.Regions, 1, 16)
		}
		return r.file.Fail(key, "unknown key %q: want aging or regions", key.Value)
	})
}

func (r *reader) limits(n *yamlfile.Node, into *bundle.Limits) error {
	return r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "in_flight":
			return r.file.Uint(n, &into.MaxInFlight, 1, 1<<20)
		case "request_bytes":
			return r.file.Uint(n, &into.MaxRequestBytes, 1, policy.MaxRequestBytes)
		case "fuel":
			return r.file.Uint(n, &into.MaxFuel, 1, abi.MaxFuel)
		}
		return r.file.Fail(key, "unknown key %q: want in_flight, request_bytes or fuel", key.Value)
	})
}
