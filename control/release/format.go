package release

import (
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// A File is a release as its file shows it, for people and as JSON. Packages are
// named by digest.
type File struct {
	Tenant    string            `json:"tenant" yaml:"tenant"`
	Epoch     uint64            `json:"epoch" yaml:"epoch"`
	Previous  string            `json:"previous,omitempty" yaml:"previous,omitempty"`
	Fallback  string            `json:"fallback" yaml:"fallback"`
	Note      string            `json:"note,omitempty" yaml:"note,omitempty"`
	NotBefore string            `json:"not_before,omitempty" yaml:"not_before,omitempty"`
	Expires   string            `json:"expires,omitempty" yaml:"expires,omitempty"`
	Audience  map[string]string `json:"audience,omitempty" yaml:"audience,omitempty"`
	LiveShare string            `json:"live_share,omitempty" yaml:"live_share,omitempty"`

	TrimOnOneReceipt bool `json:"trim_on_one_receipt,omitempty" yaml:"trim_on_one_receipt,omitempty"`

	Staleness *FileStaleness `json:"staleness,omitempty" yaml:"staleness,omitempty"`
	Limits    *FileLimits    `json:"limits,omitempty" yaml:"limits,omitempty"`
	Rings     []FileRing     `json:"rings,omitempty" yaml:"rings,omitempty"`
	Halt      *FileHalt      `json:"halt,omitempty" yaml:"halt,omitempty"`
	Points    FilePoints     `json:"points" yaml:"points"`
}

// FilePoints are the points of a File by name.
type FilePoints map[string]FilePoint

// FileStaleness is the key staleness.
type FileStaleness struct {
	Aging   string `json:"aging,omitempty" yaml:"aging,omitempty"`
	Regions uint64 `json:"regions,omitempty" yaml:"regions,omitempty"`
}

// FileLimits is the key limits.
type FileLimits struct {
	InFlight     uint64 `json:"in_flight,omitempty" yaml:"in_flight,omitempty"`
	RequestBytes uint64 `json:"request_bytes,omitempty" yaml:"request_bytes,omitempty"`
	Fuel         uint64 `json:"fuel,omitempty" yaml:"fuel,omitempty"`
}

// FileRing is an entry of rings.
type FileRing struct {
	Name    string            `json:"name" yaml:"name"`
	Labels  map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
	Percent uint64            `json:"percent" yaml:"percent"`
	Shadow  *FileBake         `json:"shadow,omitempty" yaml:"shadow,omitempty"`
	Bake    *FileBake         `json:"bake,omitempty" yaml:"bake,omitempty"`
}

// FileBake is the key shadow or bake.
type FileBake struct {
	Decisions uint64 `json:"decisions,omitempty" yaml:"decisions,omitempty"`
	For       string `json:"for,omitempty" yaml:"for,omitempty"`
}

// FileHalt is the key halt.
type FileHalt struct {
	Traps        string `json:"traps,omitempty" yaml:"traps,omitempty"`
	Drift        string `json:"drift,omitempty" yaml:"drift,omitempty"`
	Latency      string `json:"latency,omitempty" yaml:"latency,omitempty"`
	Deny         string `json:"deny,omitempty" yaml:"deny,omitempty"`
	MinDecisions uint64 `json:"min_decisions,omitempty" yaml:"min_decisions,omitempty"`
}

// FilePoint is an entry of points.
type FilePoint struct {
	Packages     []FilePackage  `json:"packages" yaml:"packages"`
	Durability   string         `json:"durability" yaml:"durability"`
	OnError      string         `json:"on_error" yaml:"on_error"`
	OnFuel       string         `json:"on_fuel" yaml:"on_fuel"`
	OnOverload   string         `json:"on_overload" yaml:"on_overload"`
	OnLogFailure string         `json:"on_log_failure" yaml:"on_log_failure"`
	OnStale      string         `json:"on_stale" yaml:"on_stale"`
	Lease        string         `json:"lease,omitempty" yaml:"lease,omitempty"`
	Limits       *FileLimits    `json:"limits,omitempty" yaml:"limits,omitempty"`
	Masks        []FileMask     `json:"masks,omitempty" yaml:"masks,omitempty"`
	Retention    *FileRetention `json:"retention,omitempty" yaml:"retention,omitempty"`
}

// FileRetention is the key retention.
type FileRetention struct {
	Class       string `json:"class" yaml:"class"`
	RecordsDays uint64 `json:"records_days,omitempty" yaml:"records_days,omitempty"`
	PartsDays   uint64 `json:"parts_days,omitempty" yaml:"parts_days,omitempty"`
}

// FilePackage is an entry of a point's packages.
type FilePackage struct {
	Name       string         `json:"name" yaml:"name"`
	Digest     string         `json:"digest" yaml:"digest"`
	Size       uint64         `json:"size" yaml:"size"`
	Entrypoint string         `json:"entrypoint,omitempty" yaml:"entrypoint,omitempty"`
	Params     map[string]any `json:"params,omitempty" yaml:"params,omitempty"`
	Fuel       uint64         `json:"fuel,omitempty" yaml:"fuel,omitempty"`
}

// FileMask is an entry of a point's masks.
type FileMask struct {
	Path   string `json:"path" yaml:"path"`
	Action string `json:"action" yaml:"action"`
}

// Show returns the release as its file.
func Show(r *bundle.Release) *File {
	f := &File{
		Tenant: r.Tenant, Epoch: r.Epoch, Fallback: r.Fallback, Note: r.Note, NotBefore: instant(r.NotBefore), Expires: instant(r.Expires),
		Audience: r.Audience, LiveShare: shareOf(r.LivePerMillion), TrimOnOneReceipt: r.TrimOnOneReceipt, Limits: limitsOf(r.Limits), Points: FilePoints{},
	}
	if !r.Previous.IsZero() {
		f.Previous = r.Previous.String()
	}
	if r.Staleness != (bundle.Staleness{}) {
		f.Staleness = &FileStaleness{Aging: secondsOf(r.Staleness.AgingSeconds), Regions: r.Staleness.Regions}
	}
	for _, g := range r.Rings {
		f.Rings = append(f.Rings, FileRing{Name: g.Name, Labels: g.Labels, Percent: g.Percent, Shadow: bakeOf(g.Shadow), Bake: bakeOf(g.Bake)})
	}
	if h := r.Halt; h != (bundle.Halt{}) {
		f.Halt = &FileHalt{
			Traps: shareOf(h.TrapsPerMillion), Drift: shareOf(h.DriftPerMillion), Deny: shareOf(h.DenyPerMillion), MinDecisions: h.MinDecisions,
		}
		if h.LatencyMicros > 0 {
			f.Halt.Latency = (time.Duration(h.LatencyMicros) * time.Microsecond).String()
		}
	}
	for i := range r.Points {
		f.Points[r.Points[i].Name] = pointOf(&r.Points[i])
	}
	return f
}

func pointOf(p *bundle.Point) FilePoint {
	f := FilePoint{
		Durability: p.Durability.String(), OnError: p.OnError.String(), OnFuel: p.OnFuel.String(), OnOverload: p.OnOverload.String(),
		OnLogFailure: p.OnLogFailure.String(), OnStale: p.OnStale.String(), Lease: secondsOf(p.LeaseSeconds), Limits: limitsOf(p.Limits),
	}
	for _, k := range p.Packages {
		f.Packages = append(f.Packages, FilePackage{
			Name: k.Name, Digest: k.Digest.String(), Size: k.Size, Entrypoint: k.Entrypoint, Params: k.Params, Fuel: k.Fuel,
		})
	}
	if r := p.Retention; r != (bundle.Retention{}) {
		f.Retention = &FileRetention{r.Class, r.RecordsDays, r.PartsDays}
	}
	for _, m := range p.Masks {
		f.Masks = append(f.Masks, FileMask{m.Path, m.Action})
	}
	return f
}

func limitsOf(l bundle.Limits) *FileLimits {
	if l == (bundle.Limits{}) {
		return nil
	}
	return &FileLimits{l.MaxInFlight, l.MaxRequestBytes, l.MaxFuel}
}

func bakeOf(b bundle.Bake) *FileBake {
	if b.IsZero() {
		return nil
	}
	return &FileBake{b.Decisions, secondsOf(b.Seconds)}
}

func secondsOf(s int64) string {
	if s == 0 {
		return ""
	}
	return duration(s * int64(time.Second))
}

func shareOf(perMillion uint64) string {
	if perMillion == 0 {
		return ""
	}
	return percent(int64(perMillion))
}

// YAML is the file's text: Parse makes the same release of it, but for the time
// at which it was made and the order of its points.
func (f *File) YAML() ([]byte, error) { return yamlfile.Marshal(f) }
