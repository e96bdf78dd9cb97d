package bundle

import (
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What a node may step back to by itself when a release does not hold.
const (
	FallbackPrevious = "previous" // the release's predecessor
	FallbackNone     = "none"
)

// A Release says what is in force for one tenant: at each point, which packages
// decide, in which order, and what happens when they cannot.
type Release struct {
	Tenant string `cbor:"tenant"`
	// Epoch only rises. Going back to old content is a new epoch.
	Epoch uint64 `cbor:"epoch"`
	// Previous is the digest of the release that this one replaces; zero for none.
	Previous wire.Digest `cbor:"previous"`
	Fallback string      `cbor:"fallback"`
	// Created, NotBefore and Expires are seconds since 1970; 0 says nothing.
	// Expires gates activation, never what is in force.
	Created   int64   `cbor:"created,omitempty"`
	NotBefore int64   `cbor:"not_before,omitempty"`
	Expires   int64   `cbor:"expires,omitempty"`
	Note      string  `cbor:"note,omitempty"`
	Points    []Point `cbor:"points"`
}

// A Point is one decision point of a release. The zero fail modes deny.
type Point struct {
	Name         string            `cbor:"name"`
	Packages     []PackageRef      `cbor:"packages"` // all of them decide, in this order
	Durability   policy.Durability `cbor:"durability"`
	OnError      policy.FailMode   `cbor:"on_error"`
	OnFuel       policy.FailMode   `cbor:"on_fuel"`
	OnOverload   policy.FailMode   `cbor:"on_overload"`
	OnLogFailure policy.FailMode   `cbor:"on_log_failure"`
	OnStale      policy.FailMode   `cbor:"on_stale"`
	// LeaseSeconds is how long the point may decide without news; 0 is the default of four hours.
	LeaseSeconds int64 `cbor:"lease_seconds,omitempty"`
}

// A PackageRef names a package by digest and says how the point uses it.
type PackageRef struct {
	Name   string      `cbor:"name"` // for people; the digest decides
	Digest wire.Digest `cbor:"digest"`
	// Size is that of the uncompressed package and bounds its decompression.
	Size uint64 `cbor:"size"`
	// Entrypoint overrides the manifest's when it is not empty.
	Entrypoint string `cbor:"entrypoint,omitempty"`
	// Params overlay the manifest's, name by name.
	Params map[string]any `cbor:"params,omitempty"`
	// Fuel overrides the manifest's when it is not 0.
	Fuel uint64 `cbor:"fuel,omitempty"`
}

// Encode returns the bytes to be signed, or an error that wraps ErrRelease.
func (r *Release) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return wire.Marshal(r)
}

// Validate returns an error that wraps ErrRelease and names the member at
// fault, or nil.
func (r *Release) Validate() error {
	if err := r.check(); err != nil {
		return fmt.Errorf("%w: epoch %d: %w", ErrRelease, r.Epoch, err)
	}
	return nil
}

func (r *Release) check() error {
	if err := CheckTenant(r.Tenant); err != nil {
		return err
	}
	switch {
	case r.Epoch == 0:
		return fmt.Errorf("epochs begin at 1")
	case r.Fallback != FallbackPrevious && r.Fallback != FallbackNone:
		return fmt.Errorf("fallback %.80q; %q or %q", r.Fallback, FallbackPrevious, FallbackNone)
	case r.Created < 0 || r.NotBefore < 0 || r.Expires < 0:
		return fmt.Errorf("a time before 1970")
	case r.Expires != 0 && (r.Expires <= r.NotBefore || r.Expires <= r.Created):
		return fmt.Errorf("expires before it begins")
	case len(r.Note) > MaxText:
		return fmt.Errorf("note of %d bytes; at most %d", len(r.Note), MaxText)
	case len(r.Points) == 0 || len(r.Points) > MaxPoints:
		return fmt.Errorf("%d points; 1 to %d", len(r.Points), MaxPoints)
	}
	seen := map[string]bool{}
	for i := range r.Points {
		p := &r.Points[i]
		if seen[p.Name] {
			return fmt.Errorf("point %q twice", p.Name)
		}
		seen[p.Name] = true
		if err := p.check(); err != nil {
			return fmt.Errorf("point %.80q: %w", p.Name, err)
		}
	}
	return nil
}

func (p *Point) check() error {
	if err := CheckPoint(p.Name); err != nil {
		return err
	}
	for _, m := range []policy.FailMode{p.OnError, p.OnFuel, p.OnOverload, p.OnLogFailure, p.OnStale} {
		if _, err := m.MarshalText(); err != nil {
			return fmt.Errorf("fail mode: %w", err)
		}
	}
	switch {
	case !slices.Contains([]policy.Durability{policy.Written, policy.Synced, policy.Region, policy.Regions}, p.Durability):
		return fmt.Errorf("durability %s; written, synced, region or regions", p.Durability)
	case p.LeaseSeconds < 0 || p.LeaseSeconds > MaxLease:
		return fmt.Errorf("lease of %d seconds; 0 to %d", p.LeaseSeconds, MaxLease)
	case len(p.Packages) == 0 || len(p.Packages) > MaxPointPackages:
		return fmt.Errorf("%d packages; 1 to %d", len(p.Packages), MaxPointPackages)
	}
	for i := range p.Packages {
		if err := p.Packages[i].check(); err != nil {
			return fmt.Errorf("package %d: %w", i+1, err)
		}
	}
	return nil
}

func (r *PackageRef) check() error {
	switch {
	case r.Name == "" || len(r.Name) > MaxText || len(r.Entrypoint) > MaxText:
		return fmt.Errorf("name or entry point empty or longer than %d bytes", MaxText)
	case r.Digest.IsZero():
		return fmt.Errorf("no digest")
	case r.Size == 0 || r.Size > MaxPackage:
		return fmt.Errorf("size of %d bytes; 1 to %d", r.Size, MaxPackage)
	case r.Fuel > abi.MaxFuel:
		return fmt.Errorf("fuel of %d units; at most %d", r.Fuel, abi.MaxFuel)
	}
	return checkParams(r.Params)
}

// UnverifiedEpoch returns the epoch that an envelope claims, 0 when it cannot be
// read. Nobody vouches for it: it may put envelopes in an order, nothing else.
func UnverifiedEpoch(env []byte) uint64 {
	_, payload, err := parseEnvelope(env, ReleaseType)
	if err != nil {
		return 0
	}
	var r Release
	if err := wire.Unmarshal(payload, &r); err != nil {
		return 0
	}
	return r.Epoch
}
