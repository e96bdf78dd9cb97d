package release

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What a change does to what is allowed, where that can be told from the release
// alone. What a replaced package decides cannot.
const (
	Looser   = "looser"
	Stricter = "stricter"
)

// A Change is one difference between two releases. Old or New is nil when what
// Path names is only in the other one.
type Change struct {
	Path   string `json:"path"` // such as points/tool.pre_call/on_error
	Old    any    `json:"old"`
	New    any    `json:"new"`
	Effect string `json:"effect,omitempty"`
}

// A Side is one of the two releases.
type Side struct {
	Epoch  uint64      `json:"epoch"`
	Digest wire.Digest `json:"digest"`
}

// A Difference is what changes from one release to another, by names and not by
// bytes. Epoch, previous and creation change always and are not in it.
type Difference struct {
	From    Side     `json:"from"`
	To      Side     `json:"to"`
	Looser  int      `json:"looser"` // how many changes are
	Changes []Change `json:"changes"`
}

// Diff compares two releases.
func Diff(from, to *bundle.SignedRelease) *Difference {
	d := &Difference{From: Side{from.Epoch, from.Digest}, To: Side{to.Epoch, to.Digest}, Changes: []Change{}}
	d.text("tenant", from.Tenant, to.Tenant)
	d.text("note", from.Note, to.Note)
	d.text("fallback", from.Fallback, to.Fallback)
	d.text("not_before", instant(from.NotBefore), instant(to.NotBefore))
	d.text("expires", instant(from.Expires), instant(to.Expires))
	d.labels("audience", from.Audience, to.Audience)
	d.points(from.Points, to.Points)
	d.number("live_share", effective(from.LivePerMillion, 10_000), effective(to.LivePerMillion, 10_000), percent, Stricter)
	if from.TrimOnOneReceipt != to.TrimOnOneReceipt {
		effect := Stricter
		if to.TrimOnOneReceipt {
			effect = Looser
		}
		d.add("trim_on_one_receipt", from.TrimOnOneReceipt, to.TrimOnOneReceipt, effect)
	}
	d.number("staleness/aging", int64(from.Staleness.Aging()), int64(to.Staleness.Aging()), duration, Looser)
	d.number("staleness/regions", from.Staleness.MinRegions(), to.Staleness.MinRegions(), plain, Stricter)
	d.limits("limits/", from.Limits, to.Limits)
	d.rings(from.Rings, to.Rings)
	d.halt(from.Halt, to.Halt)
	for _, c := range d.Changes {
		if c.Effect == Looser {
			d.Looser++
		}
	}
	return d
}

func (d *Difference) add(path string, old, new any, effect string) {
	d.Changes = append(d.Changes, Change{path, old, new, effect})
}

func (d *Difference) text(path, old, new string) {
	if old != new {
		d.add(path, word(old), word(new), "")
	}
}

// word is nil for no text.
func word(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// number compares two numbers, of which a rise has the given effect, "" for none.
func (d *Difference) number(path string, old, new any, show func(int64) string, rise string) {
	a, b := toInt(old), toInt(new)
	if a == b {
		return
	}
	effect := rise
	if b < a {
		effect = opposite(rise)
	}
	d.add(path, show(a), show(b), effect)
}

func toInt(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	case uint64:
		return int64(min(v, 1<<62))
	}
	return 0
}

func opposite(effect string) string {
	switch effect {
	case Looser:
		return Stricter
	case Stricter:
		return Looser
	}
	return ""
}

func effective(v, otherwise uint64) uint64 { return cmp.Or(v, otherwise) }

func (d *Difference) labels(path string, old, new map[string]string) {
	for _, name := range union(old, new) {
		if old[name] != new[name] {
			d.add(path+"/"+name, word(old[name]), word(new[name]), "")
		}
	}
}

func union[V any](a, b map[string]V) []string {
	all := slices.Concat(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b)))
	slices.Sort(all)
	return slices.Compact(all)
}

func (d *Difference) points(from, to []bundle.Point) {
	old, new := byName(from), byName(to)
	for _, name := range union(old, new) {
		path := "points/" + name
		switch a, b := old[name], new[name]; {
		case b == nil:
			d.add(path, packageNames(a), nil, "")
		case a == nil:
			d.add(path, nil, packageNames(b), "")
		default:
			d.point(path+"/", a, b)
		}
	}
}

func byName(points []bundle.Point) map[string]*bundle.Point {
	m := map[string]*bundle.Point{}
	for i := range points {
		m[points[i].Name] = &points[i]
	}
	return m
}

func packageNames(p *bundle.Point) []string {
	var names []string
	for _, ref := range p.Packages {
		names = append(names, ref.Name+" "+ref.Digest.String())
	}
	return names
}

func (d *Difference) point(path string, a, b *bundle.Point) {
	d.packages(path, a.Packages, b.Packages)
	d.failMode(path+"on_error", a.OnError, b.OnError)
	d.failMode(path+"on_fuel", a.OnFuel, b.OnFuel)
	d.failMode(path+"on_overload", a.OnOverload, b.OnOverload)
	d.failMode(path+"on_log_failure", a.OnLogFailure, b.OnLogFailure)
	d.failMode(path+"on_stale", a.OnStale, b.OnStale)
	if a.Durability != b.Durability {
		effect := Stricter
		if b.Durability < a.Durability {
			effect = Looser
		}
		d.add(path+"durability", a.Durability.String(), b.Durability.String(), effect)
	}
	d.number(path+"lease", int64(a.Lease()), int64(b.Lease()), duration, Looser)
	d.limits(path+"limits/", a.Limits, b.Limits)
	d.retention(path+"retention/", a.Retention, b.Retention)
	old, new := masks(a), masks(b)
	for _, name := range union(old, new) {
		if old[name] != new[name] {
			effect := ""
			if new[name] == "" {
				effect = Looser // what was kept out of the records is in them
			}
			d.add(path+"masks"+name, word(old[name]), word(new[name]), effect)
		}
	}
}

// retention compares how long records are kept. Neither is looser: shorter is less
// evidence, longer is more of people's data.
func (d *Difference) retention(path string, a, b bundle.Retention) {
	if a.Class != b.Class {
		d.add(path+"class", word(a.Class), word(b.Class), "")
	}
	days := func(n uint64) any {
		if n == 0 {
			return nil
		}
		return n
	}
	if a.RecordsDays != b.RecordsDays {
		d.add(path+"records_days", days(a.RecordsDays), days(b.RecordsDays), "")
	}
	if a.PartsDays != b.PartsDays {
		d.add(path+"parts_days", days(a.PartsDays), days(b.PartsDays), "")
	}
}

func masks(p *bundle.Point) map[string]string {
	m := map[string]string{}
	for _, k := range p.Masks {
		m[k.Path] = k.Action
	}
	return m
}

// severity orders fail modes: deny is the strictest.
func severity(m policy.FailMode) int {
	return map[policy.FailMode]int{policy.FailDeny: 2, policy.FailEscalate: 1, policy.FailAllowFlagged: 0}[m]
}

func (d *Difference) failMode(path string, old, new policy.FailMode) {
	switch a, b := severity(old), severity(new); {
	case b < a:
		d.add(path, old.String(), new.String(), Looser)
	case b > a:
		d.add(path, old.String(), new.String(), Stricter)
	}
}

// packages compares what decides at a point. A package fewer can only allow more.
func (d *Difference) packages(path string, from, to []bundle.PackageRef) {
	old, new := refs(from), refs(to)
	for _, name := range union(old, new) {
		at := path + "packages/" + name
		switch a, b := old[name], new[name]; {
		case b == nil:
			d.add(at, a.Digest.String(), nil, Looser)
		case a == nil:
			d.add(at, nil, b.Digest.String(), Stricter)
		default:
			if a.Digest != b.Digest {
				d.add(at, a.Digest.String(), b.Digest.String(), "")
			}
			d.text(at+"/entrypoint", a.Entrypoint, b.Entrypoint)
			d.number(at+"/fuel", a.Fuel, b.Fuel, plain, "")
			d.value(at+"/params", object(a.Params), object(b.Params))
		}
	}
	if a, b := common(from, new), common(to, old); !slices.Equal(a, b) {
		d.add(path+"packages", a, b, "")
	}
}

// refs names each package of a point; of a name that is there twice the second is
// name#2.
func refs(list []bundle.PackageRef) map[string]*bundle.PackageRef {
	m := map[string]*bundle.PackageRef{}
	for i := range list {
		m[unique(list[i].Name, m)] = &list[i]
	}
	return m
}

func unique[V any](name string, taken map[string]V) string {
	for n, try := 2, name; ; n++ {
		if _, ok := taken[try]; !ok {
			return try
		}
		try = name + "#" + strconv.Itoa(n)
	}
}

// common returns the names of list, in its order, that are in other too.
func common(list []bundle.PackageRef, other map[string]*bundle.PackageRef) (names []string) {
	seen := map[string]bool{}
	for _, ref := range list {
		name := unique(ref.Name, seen)
		seen[name] = true
		if other[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

// object is nil for no parameters, so that none and an empty mapping are the same.
func object(m map[string]any) any {
	if len(m) == 0 {
		return map[string]any{}
	}
	return m
}

// value compares policy values member by member.
func (d *Difference) value(path string, old, new any) {
	a, isObject := old.(map[string]any)
	b, both := new.(map[string]any)
	if !isObject || !both {
		if !reflect.DeepEqual(old, new) {
			d.add(path, present(old), present(new), "")
		}
		return
	}
	for _, name := range union(a, b) {
		x, had := a[name]
		y, has := b[name]
		at := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		switch {
		case had && has:
			d.value(at, x, y)
		case had:
			d.add(at, present(x), nil, "")
		default:
			d.add(at, nil, present(y), "")
		}
	}
}

// present tells a null that is there from nothing.
func present(v any) any {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

func (d *Difference) limits(path string, a, b bundle.Limits) {
	d.number(path+"in_flight", a.MaxInFlight, b.MaxInFlight, bound, "")
	d.number(path+"request_bytes", a.MaxRequestBytes, b.MaxRequestBytes, bound, "")
	d.number(path+"fuel", a.MaxFuel, b.MaxFuel, bound, "")
}

// rings compares how the release is taken. Fewer rings, or less waiting, is looser.
func (d *Difference) rings(from, to []bundle.Ring) {
	old, new := map[string]*bundle.Ring{}, map[string]*bundle.Ring{}
	var a, b []string
	for i := range from {
		old[from[i].Name] = &from[i]
		a = append(a, from[i].Name)
	}
	for i := range to {
		new[to[i].Name] = &to[i]
		b = append(b, to[i].Name)
	}
	if !slices.Equal(a, b) {
		effect := ""
		switch {
		case len(b) < len(a):
			effect = Looser
		case len(b) > len(a):
			effect = Stricter
		}
		d.add("rings", a, b, effect)
	}
	for _, name := range union(old, new) {
		if x, y := old[name], new[name]; x != nil && y != nil {
			path := "rings/" + name + "/"
			d.labels(path+"labels", x.Labels, y.Labels)
			d.number(path+"percent", x.Percent, y.Percent, plain, "")
			d.bake(path+"shadow", x.Shadow, y.Shadow)
			d.bake(path+"bake", x.Bake, y.Bake)
		}
	}
}

func (d *Difference) bake(path string, a, b bundle.Bake) {
	d.number(path+"/decisions", a.Decisions, b.Decisions, plain, Stricter)
	d.number(path+"/for", a.Seconds*int64(time.Second), b.Seconds*int64(time.Second), duration, Stricter)
}

func (d *Difference) halt(a, b bundle.Halt) {
	x, y := a.Thresholds(), b.Thresholds()
	d.number("halt/traps", x.TrapsPerMillion, y.TrapsPerMillion, percent, Looser)
	d.number("halt/drift", x.DriftPerMillion, y.DriftPerMillion, percent, Looser)
	d.number("halt/deny", effective(x.DenyPerMillion, 1<<62), effective(y.DenyPerMillion, 1<<62), percent, Looser)
	d.number("halt/latency", x.LatencyMicros*1000, y.LatencyMicros*1000, duration, Looser)
	d.number("halt/min_decisions", x.MinDecisions, y.MinDecisions, plain, "")
}

func plain(n int64) string { return strconv.FormatInt(n, 10) }

func bound(n int64) string {
	if n == 0 {
		return "none"
	}
	return plain(n)
}

func percent(perMillion int64) string {
	if perMillion == 1<<62 {
		return "none"
	}
	return strconv.FormatFloat(float64(perMillion)/10_000, 'f', -1, 64) + "%"
}

func duration(ns int64) string {
	s := time.Duration(ns).String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

func instant(unix int64) string {
	if unix == 0 {
		return ""
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}

// Write writes the difference for people, one change a line.
func (d *Difference) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d %s\n   -> %d %s\n", d.From.Epoch, d.From.Digest, d.To.Epoch, d.To.Digest)
	for _, c := range d.Changes {
		sign := "~"
		switch {
		case c.Old == nil:
			sign = "+"
		case c.New == nil:
			sign = "-"
		}
		fmt.Fprintf(&b, "  %s %s: %s", sign, show(c.Path), c.values())
		if c.Effect != "" {
			b.WriteString("  " + strings.ToUpper(c.Effect))
		}
		b.WriteByte('\n')
	}
	switch {
	case len(d.Changes) == 0:
		b.WriteString("  nothing changes\n")
	case d.Looser > 0:
		fmt.Fprintf(&b, "%d of %d changes are LOOSER\n", d.Looser, len(d.Changes))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Change) values() string {
	switch {
	case c.Old == nil:
		return show(c.New)
	case c.New == nil:
		return show(c.Old)
	}
	return show(c.Old) + " -> " + show(c.New)
}

// show writes a value on one line; text that a terminal could take for more is quoted.
func show(v any) string {
	switch v := v.(type) {
	case string:
		if strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) }) {
			return strconv.Quote(v)
		}
		return v
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T", v)
	}
	return string(b)
}
