package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
	// Audience are labels that a node must have to take the release.
	Audience map[string]string `cbor:"audience,omitempty"`
	// Rings are taken one after the other; without them every node takes the
	// release at once.
	Rings []Ring `cbor:"rings,omitempty"`
	// Halt says when a rollout through rings stops and goes back by itself.
	Halt      Halt      `cbor:"halt,omitzero"`
	Staleness Staleness `cbor:"staleness,omitzero"`
	// Limits bound the tenant on each node.
	Limits Limits `cbor:"limits,omitzero"`
	// LivePerMillion of the live decisions are run again on the second engine;
	// 0 is the default of 10,000, 1,000,000 all.
	LivePerMillion uint64 `cbor:"live_per_million,omitempty"`
	// TrimOnOneReceipt lets a node whose journal runs out of room give up records
	// that one region alone has counter-signed.
	TrimOnOneReceipt bool `cbor:"trim_on_one_receipt,omitempty"`
}

// Staleness says when a node that hears no heartbeat is flagged; the lease of
// each point says when it stops deciding.
type Staleness struct {
	// AgingSeconds without news make a node aging: it decides, and says so. 0 is
	// the default of 60.
	AgingSeconds int64 `cbor:"aging_seconds,omitempty"`
	// Regions is how many regions must have been heard; 0 is the default of one.
	Regions uint64 `cbor:"regions,omitempty"`
}

// Limits bound what is in flight; what comes beyond is answered by on_overload.
// 0 is no bound of the release's own.
type Limits struct {
	MaxInFlight uint64 `cbor:"max_in_flight,omitempty"`
	// MaxRequestBytes bounds a request's JSON.
	MaxRequestBytes uint64 `cbor:"max_request_bytes,omitempty"`
	// MaxFuel bounds one call of a module, below the package's own bound.
	MaxFuel uint64 `cbor:"max_fuel,omitempty"`
}

// What a Mask does with a member of a request before it is recorded.
const (
	MaskDrop     = "drop"
	MaskHash     = "hash"
	MaskTokenise = "tokenise"
)

// A Mask keeps a member of the request out of the record, and its value out of
// whatever else the record says.
type Mask struct {
	// Path is a JSON pointer into the request, such as /context/user; "*" stands
	// for every member or element there.
	Path   string `cbor:"path"`
	Action string `cbor:"action"`
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
	LeaseSeconds int64  `cbor:"lease_seconds,omitempty"`
	Limits       Limits `cbor:"limits,omitzero"`
	Masks        []Mask `cbor:"masks,omitempty"`
	// Retention says how long ledgers keep the point's records; zero is for ever.
	Retention Retention `cbor:"retention,omitzero"`
}

// A Retention is a class of records that are kept equally long.
type Retention struct {
	// Class is its name; points of one class have the same days.
	Class string `cbor:"class"`
	// RecordsDays is how long a record is kept as a whole; 0 is for ever.
	RecordsDays uint64 `cbor:"records_days,omitempty"`
	// PartsDays is how long its request, value and logs are kept; 0 is as long as
	// the record.
	PartsDays uint64 `cbor:"parts_days,omitempty"`
}

// Bounds of a retention, in days.
const (
	// MinRecordsDays is six months: Regulation (EU) 2024/1689, articles 19 and 26(6).
	MinRecordsDays   = 183
	MaxRetentionDays = 36_600
)

func (r Retention) check() error {
	switch {
	case r == Retention{}:
		return nil
	case r.RecordsDays != 0 && r.RecordsDays < MinRecordsDays:
		return fmt.Errorf("retention %.80q: records are kept %d days; at least %d, or 0 for ever", r.Class, r.RecordsDays, MinRecordsDays)
	case r.RecordsDays > MaxRetentionDays || r.PartsDays > MaxRetentionDays:
		return fmt.Errorf("retention %.80q: %d and %d days; at most %d", r.Class, r.RecordsDays, r.PartsDays, MaxRetentionDays)
	case r.RecordsDays != 0 && r.PartsDays > r.RecordsDays:
		return fmt.Errorf("retention %.80q: parts are kept %d days, records %d", r.Class, r.PartsDays, r.RecordsDays)
	}
	return checkToken("retention class", r.Class, "-_")
}

// DefaultLease is the lease of a point that states none.
const DefaultLease = 4 * time.Hour

// Lease is how long the point may decide without hearing a heartbeat.
func (p *Point) Lease() time.Duration {
	if p.LeaseSeconds == 0 {
		return DefaultLease
	}
	return time.Duration(p.LeaseSeconds) * time.Second
}

// Aging is how long a node may hear nothing before it is flagged.
func (s Staleness) Aging() time.Duration {
	if s.AgingSeconds == 0 {
		return time.Minute
	}
	return time.Duration(s.AgingSeconds) * time.Second
}

// MinRegions is how many regions must have been heard.
func (s Staleness) MinRegions() int { return int(max(s.Regions, 1)) }

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
	if err := first(checkLabels(r.Audience), checkRings(r.Rings), r.Staleness.check(), r.Limits.check()); err != nil {
		return err
	}
	if r.LivePerMillion > million || r.Halt.TrapsPerMillion > million || r.Halt.DriftPerMillion > million || r.Halt.DenyPerMillion > million {
		return fmt.Errorf("a share of more than a million per million")
	}
	if len(r.Rings) == 0 && r.Halt != (Halt{}) {
		return fmt.Errorf("halt thresholds without rings: nothing would look at them")
	}
	seen, classes := map[string]bool{}, map[string]Retention{}
	for i := range r.Points {
		p := &r.Points[i]
		if have, twice := classes[p.Retention.Class]; twice && have != p.Retention {
			return fmt.Errorf("point %.80q: retention class %q has other days at another point", p.Name, p.Retention.Class)
		}
		classes[p.Retention.Class] = p.Retention
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
	if err := first(p.Limits.check(), checkMasks(p.Masks), p.Retention.check()); err != nil {
		return err
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

const million = 1_000_000

func (s Staleness) check() error {
	if s.AgingSeconds < 0 || s.AgingSeconds > MaxLease || s.Regions > 16 {
		return fmt.Errorf("staleness of %d seconds and %d regions; at most %d and 16", s.AgingSeconds, s.Regions, MaxLease)
	}
	return nil
}

func (l Limits) check() error {
	if l.MaxFuel > abi.MaxFuel || l.MaxRequestBytes > policy.MaxRequestBytes || l.MaxInFlight > 1<<20 {
		return fmt.Errorf("limits of %d in flight, %d bytes and %d units of fuel; at most %d, %d and %d",
			l.MaxInFlight, l.MaxRequestBytes, l.MaxFuel, 1<<20, policy.MaxRequestBytes, abi.MaxFuel)
	}
	return nil
}

func checkMasks(masks []Mask) error {
	if len(masks) > 64 {
		return fmt.Errorf("%d masks; at most 64", len(masks))
	}
	for _, m := range masks {
		if err := m.Check(); err != nil {
			return err
		}
	}
	return nil
}

// maskable are the members of a request that masks can reach into. The point is
// none: its name is in the release.
var maskable = [...]string{"id", "subject", "action", "resource", "context", "supported_obligations", "signals", "document"}

// Check returns why a release must not have the mask.
func (m Mask) Check() error {
	root, _, _ := strings.Cut(strings.TrimPrefix(m.Path, "/"), "/")
	escapes := strings.NewReplacer("~0", "", "~1", "").Replace(m.Path)
	switch {
	case len(m.Path) < 2 || len(m.Path) > MaxText || m.Path[0] != '/' || strings.Contains(escapes, "~"):
		return fmt.Errorf("mask %.80q is not a JSON pointer to a member", m.Path)
	case !slices.Contains(maskable[:], root):
		return fmt.Errorf("mask %.80q: a request has no member %.80q; it has %s", m.Path, root, strings.Join(maskable[:], ", "))
	case !slices.Contains([]string{MaskDrop, MaskHash, MaskTokenise}, m.Action):
		return fmt.Errorf("mask %.80q: action %.80q; drop, hash or tokenise", m.Path, m.Action)
	}
	return nil
}

// For returns ErrAudience unless a node with these labels is one that the release
// is for.
func (r *Release) For(labels map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(r.Audience)) {
		if value, ok := labels[name]; !ok || value != r.Audience[name] {
			return fmt.Errorf("%w: epoch %d wants %s=%s, this one has %q", ErrAudience, r.Epoch, name, r.Audience[name], value)
		}
	}
	return nil
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
