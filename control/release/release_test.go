package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var update = flag.Bool("update", false, "write the differences that were seen to testdata; review them")

var made = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

// pkg is a package file with the given name; no engine ever sees it.
func pkg(t testing.TB, name string) (file []byte, ref bundle.PackageRef) {
	t.Helper()
	p := &bundle.Package{
		Manifest: bundle.Manifest{Name: name, ABI: "holdfast_v1", Class: bundle.ClassPolicy}, Module: []byte("\x00asm " + name),
		Vectors: []bundle.Vector{{Name: "v", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
	if name == "limited" {
		p.ParamsSchema = []byte(`{"type":"object","properties":{"limit":{"type":"integer","maximum":1000}},"additionalProperties":false}`)
	}
	file, d, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	return file, bundle.PackageRef{Name: name, Digest: d, Size: uint64(len(raw))}
}

func options(t testing.TB, previous *bundle.SignedRelease) Options {
	return Options{Previous: previous, Created: made, Package: func(path string) ([]byte, error) {
		name, ok := strings.CutSuffix(filepath.Base(path), ".hfp")
		if !ok || name == "gone" {
			return nil, fs.ErrNotExist
		}
		if name == "broken" {
			return []byte("x"), nil
		}
		file, _ := pkg(t, name)
		return file, nil
	}}
}

func parse(t testing.TB, text string, previous *bundle.SignedRelease) *bundle.Release {
	t.Helper()
	d, err := Parse("r.yaml", []byte(text), options(t, previous))
	if err != nil {
		t.Fatal(err)
	}
	return d.Release
}

// signed gives a release a name, as if two persons had signed it.
func signed(t testing.TB, r *bundle.Release) *bundle.SignedRelease {
	t.Helper()
	payload, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.SignedRelease{Release: *r, Digest: wire.Sum(payload)}
}

const small = "tenant: acme\npoints: {input: {packages: [{file: a.hfp}]}}\n"

// The example is a release, and has every key that a release file can have.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse("example.yaml", text, options(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	file, authz := pkg(t, "tool-authz")
	authz.Params, authz.Fuel = map[string]any{"max_amount": int64(500), "currencies": []any{"EUR", "CHF"}}, 400_000
	guard := bundle.PackageRef{Name: "argument-guard", Size: 130_000, Entrypoint: "guard/decision"}
	copy(guard.Digest[:], bytes.Repeat([]byte{0x22}, 32))
	var previous wire.Digest
	copy(previous[:], bytes.Repeat([]byte{0x77}, 32))
	want := &bundle.Release{
		Tenant: "acme", Epoch: 8, Previous: previous, Fallback: bundle.FallbackPrevious, Created: made.Unix(),
		NotBefore: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC).Unix(), Expires: made.AddDate(0, 0, 90).Unix(), Note: "Payments over 500 need a person.",
		Audience: map[string]string{"site": "frankfurt"}, LivePerMillion: 10_000, TrimOnOneReceipt: true, Staleness: bundle.Staleness{AgingSeconds: 60, Regions: 1},
		Limits: bundle.Limits{MaxInFlight: 256, MaxRequestBytes: 262_144, MaxFuel: 2_000_000},
		Rings: []bundle.Ring{
			{Name: "canary", Labels: map[string]string{"ring": "canary"}, Percent: 100, Shadow: bundle.Bake{Decisions: 200, Seconds: 300}, Bake: bundle.Bake{Decisions: 1000, Seconds: 600}},
			{Name: "tenth", Percent: 10, Bake: bundle.Bake{Seconds: 600}}, {Name: "everyone", Percent: 100},
		},
		Halt: bundle.Halt{TrapsPerMillion: 10_000, DriftPerMillion: 100_000, LatencyMicros: 50_000, DenyPerMillion: 600_000, MinDecisions: 20},
		Points: []bundle.Point{{
			Name: "tool.pre_call", Packages: []bundle.PackageRef{authz, guard}, Durability: policy.Synced, OnFuel: policy.FailEscalate,
			LeaseSeconds: 4 * 3600, Limits: bundle.Limits{MaxInFlight: 64, MaxRequestBytes: 65_536, MaxFuel: 1_000_000},
			Masks:     []bundle.Mask{{Path: "/resource/properties/iban", Action: bundle.MaskHash}},
			Retention: bundle.Retention{Class: "payments", RecordsDays: 1095, PartsDays: 183},
		}},
	}
	if !reflect.DeepEqual(d.Release, want) {
		t.Errorf("\ngot  %+v\nwant %+v", d.Release, want)
	}
	if len(d.Packages) != 1 || !bytes.Equal(d.Packages[authz.Digest], file) {
		t.Errorf("packages %v", d.Packages)
	}
	for _, key := range keys(t) {
		if !regexp.MustCompile(`[\s{]` + key + `:`).Match(text) {
			t.Errorf("the example does not show the key %s", key)
		}
	}
}

// keys are the words that the parser's own sources compare keys with.
func keys(t *testing.T) (all []string) {
	t.Helper()
	for _, file := range []string{"release.go", "point.go", "rollout.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`case "([a-z_]+)":|"(on_[a-z_]+)":`).FindAllStringSubmatch(string(text), -1) {
			all = append(all, m[1]+m[2])
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d keys found: this test looks at the wrong files", len(all))
	}
	return all
}

func TestFirstRelease(t *testing.T) {
	_, ref := pkg(t, "a")
	want := &bundle.Release{
		Tenant: "acme", Epoch: 1, Fallback: bundle.FallbackNone, Created: made.Unix(),
		Points: []bundle.Point{{Name: "input", Durability: policy.Synced, Packages: []bundle.PackageRef{ref}}},
	}
	if got := parse(t, small, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

// What a release file leaves out comes from the release before.
func TestNextRelease(t *testing.T) {
	first := signed(t, parse(t, small, nil))
	_, ref := pkg(t, "a")
	got := parse(t, "points: {output: {packages: [{digest: '"+ref.Digest.String()+"', fuel: 9}]}}", first)
	if got.Tenant != "acme" || got.Epoch != 2 || got.Previous != first.Digest || got.Fallback != bundle.FallbackPrevious {
		t.Errorf("%+v", got)
	}
	if p := got.Points[0].Packages[0]; p.Name != "a" || p.Size != ref.Size || p.Fuel != 9 {
		t.Errorf("%+v", p)
	}
}

// Each mistake has its place, and a message that says what is wanted.
func TestParseRefuses(t *testing.T) {
	first := signed(t, parse(t, small, nil))
	digest := "sha256:" + strings.Repeat("2", 64)
	in := func(members string) string { return small + members }
	point := func(members string) string {
		return "tenant: acme\npoints:\n  input:\n    packages: [{file: a.hfp}]\n    " + members + "\n"
	}
	for text, want := range map[string]string{
		"":                                                "r.yaml: empty",
		"a: [":                                            "r.yaml:1:1: ",
		"- a":                                             "r.yaml:1:1: must be a mapping, not a list",
		"tenant: acme":                                    "r.yaml:1:1: epoch 1: 0 points; 1 to 256",
		"points: {}":                                      "r.yaml:1:1: no tenant",
		in("leese: 4h"):                                   `r.yaml:3:1: unknown key "leese": want tenant`,
		in("tenant: b"):                                   `r.yaml:3:1: "tenant" twice`,
		in("--- \na: 1"):                                  "r.yaml: more than one document",
		in("epoch: 0"):                                    "r.yaml:3:8: must be a whole number from 1",
		in("epoch: -1"):                                   "r.yaml:3:8: must be a whole number",
		in("epoch: '7'"):                                  "r.yaml:3:8: must be a whole number",
		in("epoch: 1e3"):                                  "r.yaml:3:8: must be a whole number",
		in("previous: abc"):                               "r.yaml:3:11: ",
		in("fallback: never"):                             `r.yaml:3:11: "never": want previous, none`,
		in("fallback: previous"):                          "r.yaml:3:1: fallback previous, and there is no previous release",
		in("not_before: soon"):                            "r.yaml:3:13: must be a time such as",
		in("not_before: 2026-12-01"):                      "r.yaml:3:13: must be a time such as",
		in("expires: 4"):                                  "r.yaml:3:10: must be a time such as",
		in("expires: 90 days"):                            "r.yaml:3:10: must be a time such as",
		in("expires: 2020-01-01T00:00:00Z"):               "r.yaml:1:1: epoch 1: expires before it begins",
		in("note: 7"):                                     "r.yaml:3:7: must be text, not a number",
		in("audience: [a]"):                               "r.yaml:3:11: must be a mapping, not a list",
		in("audience: {a: 1}"):                            "r.yaml:3:15: must be text, not a number",
		in("audience: {A: b}"):                            `r.yaml:1:1: epoch 1: label "A": character 'A'`,
		in("trim_on_one_receipt: yes"):                    "r.yaml:3:22: true or false",
		in("live_share: 1"):                               "r.yaml:3:13: must be a percentage",
		in("live_share: 0%"):                              "r.yaml:3:13: must be a percentage",
		in("live_share: 101%"):                            "r.yaml:3:13: must be a percentage",
		in("live_share: 0.00001%"):                        "r.yaml:3:13: must be a percentage",
		in("live_share: 1/2%"):                            "r.yaml:3:13: must be a percentage",
		in("staleness: {age: 1m}"):                        `r.yaml:3:13: unknown key "age": want aging or regions`,
		in("staleness: {aging: 1ms}"):                     "r.yaml:3:20: must be a time from 1s",
		in("staleness: {aging: 60}"):                      "r.yaml:3:20: must be a time from 1s",
		in("staleness: {regions: 17}"):                    "r.yaml:3:22: must be a whole number from 1 to 16",
		in("limits: {inflight: 1}"):                       "r.yaml:3:10: unknown key",
		in("limits: {fuel: 99999999}"):                    "r.yaml:3:16: must be a whole number from 1 to 20000000",
		in("rings: {a: 1}"):                               "r.yaml:3:8: must be a list, not a mapping",
		in("rings: [{percent: 10}]"):                      "r.yaml:3:9: a ring has a name",
		in("rings: [{name: a, percent: 0}]"):              "r.yaml:3:28: must be a whole number from 1 to 100",
		in("rings: [{name: a, percent: 10%}]"):            "r.yaml:3:28: must be a whole number from 1 to 100",
		in("rings: [{name: a b}]"):                        "r.yaml:3:16: name",
		in("rings: [{name: a}, {name: a}]"):               `r.yaml:1:1: epoch 1: ring "a" twice`,
		in("rings: [{name: a, bake: {}}]"):                "r.yaml:3:25: neither decisions nor for",
		in("rings: [{name: a, bake: {for: 0s}}]"):         "r.yaml:3:31: must be a time from 1s",
		in("rings: [{name: a, shadow: {time: 1m}}]"):      `r.yaml:3:28: unknown key "time": want decisions or for`,
		in("halt: {traps: 1%}"):                           "r.yaml:1:1: epoch 1: halt thresholds without rings",
		in("halt: {trap: 1%}"):                            `r.yaml:3:8: unknown key "trap"`,
		in("halt: {latency: 1h}"):                         "r.yaml:3:17: must be a time from 1µs to 1m0s",
		"tenant: a b\npoints: {}":                         `r.yaml:1:9: tenant "a b"`,
		"tenant: acme\npoints: {a b: {}}":                 "r.yaml:2:10: point",
		"tenant: acme\npoints: {input: {}}":               "r.yaml:2:10: point input has no packages",
		"tenant: acme\npoints: {input: {packages: []}}":   "r.yaml:2:10: point input has no packages",
		point("durability: none"):                         `r.yaml:5:17: "none": want written, synced, region or regions`,
		point("durability: sync"):                         `r.yaml:5:17: "sync": want written`,
		point("on_error: allow"):                          `r.yaml:5:15: "allow": want deny, allow_flagged or escalate`,
		point("on_stall: deny"):                           `r.yaml:5:5: unknown key "on_stall"`,
		point("lease: 4"):                                 "r.yaml:5:12: must be a time from 1s to 8784h0m0s",
		point("lease: 0s"):                                "r.yaml:5:12: must be a time",
		point("lease: 400d"):                              "r.yaml:5:12: must be a time",
		point("lease: -4h"):                               "r.yaml:5:12: must be a time",
		point("masks: [{path: /id}]"):                     "r.yaml:5:13: a mask has a path and an action",
		point("masks: [{path: a, action: drop}]"):         `r.yaml:5:13: mask "a" is not a JSON pointer`,
		point("masks: [{path: /user, action: drop}]"):     `r.yaml:5:13: mask "/user": a request has no member "user"`,
		point("retention: {parts_days: 30}"):              "r.yaml:5:16: retention has a class",
		point("retention: {class: A B}"):                  "r.yaml:5:24: name",
		point("retention: {class: a, records_days: 182}"): "r.yaml:5:41: must be a whole number from 183",
		point("retention: {class: a, parts_days: 0}"):     "r.yaml:5:39: must be a whole number from 1",
		point("retention: {class: a, keep: 1}"):           `r.yaml:5:27: unknown key "keep"`,
		point("masks: [{path: /id, action: hide}]"):       `r.yaml:5:33: "hide": want drop, hash, tokenise`,
		point("masks: [{path: /id, action: drop}, {path: /id, action: hash}]"):                    "r.yaml:5:40: mask /id twice",
		"tenant: acme\npoints: {input: {packages: [{}]}}":                                         "r.yaml:2:29: a package is named by its file or by its digest",
		"tenant: acme\npoints: {input: {packages: [a.hfp]}}":                                      "r.yaml:2:29: must be a mapping, not text",
		"tenant: acme\npoints: {input: {packages: [{file: gone.hfp}]}}":                           "r.yaml:2:29: package gone.hfp: file does not exist",
		"tenant: acme\npoints: {input: {packages: [{file: broken.hfp}]}}":                         "r.yaml:2:29: package broken.hfp: package is not valid",
		"tenant: acme\npoints: {input: {packages: [{file: a.hfp, digest: '" + digest + "'}]}}":    "r.yaml:2:29: package a.hfp is sha256:",
		"tenant: acme\npoints: {input: {packages: [{file: a.hfp, size: 1}]}}":                     "r.yaml:2:29: package a.hfp is of ",
		"tenant: acme\npoints: {input: {packages: [{digest: '" + digest + "'}]}}":                 "r.yaml:2:29: package sha256:2222",
		"tenant: acme\npoints: {input: {packages: [{file: a.hfp, params: [1]}]}}":                 "r.yaml:2:51: must be a mapping",
		"tenant: acme\npoints: {input: {packages: [{file: a.hfp, params: {a: .inf}}]}}":           "r.yaml:2:",
		"tenant: acme\npoints: {input: {packages: [{file: limited.hfp, params: {limit: 1001}}]}}": "r.yaml:2:29: package limited.hfp: ",
		"tenant: acme\npoints: {input: {packages: [{file: limited.hfp, params: {limits: 1}}]}}":   "r.yaml:2:29: package limited.hfp: ",
		"tenant: acme\npoints: {input: {packages: [{file: a.hfp, fuel: 0}]}}":                     "r.yaml:2:49: must be a whole number",
	} {
		checkFault(t, text, nil, want)
	}
	for text, want := range map[string]string{
		"tenant: b\npoints: {input: {packages: [{file: a.hfp}]}}":                "r.yaml:1:1: tenant b, but the previous release is of acme",
		"epoch: 1\npoints: {input: {packages: [{file: a.hfp}]}}":                 "r.yaml:1:1: epoch 1, but the previous release has 1",
		"epoch: 1000000000\npoints: {input: {packages: [{file: a.hfp}]}}":        "r.yaml:1:1: epoch 1000000000, but the previous release has 1; nodes take a step of at most 1000000",
		"previous: " + digest + "\npoints: {input: {packages: [{file: a.hfp}]}}": "r.yaml:1:1: previous sha256:2222",
	} {
		checkFault(t, text, first, want)
	}
}

func checkFault(t *testing.T, text string, previous *bundle.SignedRelease, want string) {
	t.Helper()
	_, err := Parse("r.yaml", []byte(text), options(t, previous))
	var at *yamlfile.Error
	if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q:\n got  %v\n want %s", text, err, want)
	}
}

// What Show writes is a file of the same release.
func TestShow(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(text), small, small + "note: \"a: b\\n'c\"\n", strings.Replace(small, "a.hfp", "a.hfp, params: {s: '7', n: 7, f: 0.5, big: 12345678901234, t: true, x: null, l: [1, [2]], y: yes}", 1)} {
		want := parse(t, text, nil)
		shown, err := Show(want).YAML()
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, string(shown), nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", shown, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(small)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse("r.yaml", []byte(text), options(t, nil))
		if err != nil {
			var at *yamlfile.Error
			if !errors.As(err, &at) {
				t.Fatalf("no place: %v", err)
			}
			return
		}
		if err := d.Release.Validate(); err != nil {
			t.Fatal(err)
		}
		shown, err := Show(d.Release).YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("r.yaml", shown, options(t, nil))
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		s := signed(t, d.Release)
		if changes := Diff(s, signed(t, again.Release)).Changes; len(changes) != 0 {
			t.Fatalf("shown as another release: %+v\n%s", changes, shown)
		}
		if changes := Diff(s, s).Changes; len(changes) != 0 {
			t.Fatalf("differs from itself: %+v", changes)
		}
	})
}

// testdata/*.txt: two releases and how they differ, as text and as JSON.
func TestDiff(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(text), "----\n")
		if len(parts) != 3 {
			t.Fatalf("%s: want two releases and their difference, divided by ----", file)
		}
		a := signed(t, parse(t, parts[0], nil))
		d := Diff(a, signed(t, parse(t, parts[1], a)))
		var out bytes.Buffer
		if err := d.Write(&out); err != nil {
			t.Fatal(err)
		}
		got := regexp.MustCompile(`sha256:([0-9a-f]{6})[0-9a-f]{58}`).ReplaceAllString(out.String(), "sha256:$1")
		if *update {
			if err := os.WriteFile(file, []byte(parts[0]+"----\n"+parts[1]+"----\n"+got), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if got != parts[2] {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, parts[2])
		}
		var back Difference
		if b, err := json.Marshal(d); err != nil || json.Unmarshal(b, &back) != nil || len(back.Changes) != len(d.Changes) || back.Looser != d.Looser {
			t.Errorf("%s: %s, %v", file, b, err)
		}
	}
}

// Whatever member of a release differs, the difference says so: a member that
// Diff forgets would be signed unseen.
func TestDiffForgetsNothing(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	always := map[string]bool{ // not compared: what changes in every release, and what the digest implies
		"Epoch": true, "Previous": true, "Created": true, "Size": true}
	seen := 0
	walk(reflect.ValueOf(parse(t, string(text), nil)).Elem(), "", func(path string, change func(r *bundle.Release)) {
		a, b := parse(t, string(text), nil), parse(t, string(text), nil)
		change(b)
		if always[path[strings.LastIndexByte(path, '.')+1:]] {
			return
		}
		seen++
		if d := Diff(&bundle.SignedRelease{Release: *a}, &bundle.SignedRelease{Release: *b}); len(d.Changes) == 0 {
			t.Errorf("%s changes unseen", path)
		}
	})
	if seen < 50 {
		t.Fatalf("only %d members were changed", seen)
	}
}

// walk calls member for every scalar below v, a release, with a function that
// changes the same scalar of another one.
func walk(v reflect.Value, path string, member func(path string, change func(*bundle.Release))) {
	walkAt(v, path, func(r reflect.Value) reflect.Value { return r }, member)
}

func walkAt(v reflect.Value, path string, find func(reflect.Value) reflect.Value, member func(string, func(*bundle.Release))) {
	at := func(r *bundle.Release) reflect.Value { return find(reflect.ValueOf(r).Elem()) }
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			walkAt(v.Field(i), path+"."+v.Type().Field(i).Name, func(r reflect.Value) reflect.Value { return find(r).Field(i) }, member)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walkAt(v.Index(i), fmt.Sprint(path, ".", i), func(r reflect.Value) reflect.Value { return find(r).Index(i) }, member)
		}
		member(path, func(r *bundle.Release) { at(r).SetLen(v.Len() - 1) })
	case reflect.Array: // a digest
		member(path, func(r *bundle.Release) { at(r).Index(0).SetUint(uint64(v.Index(0).Uint() ^ 1)) })
	case reflect.Map:
		if v.Len() == 0 {
			return
		}
		member(path, func(r *bundle.Release) { at(r).Clear() })
	case reflect.String:
		member(path, func(r *bundle.Release) { at(r).SetString(v.String() + "x") })
	case reflect.Bool:
		member(path, func(r *bundle.Release) { at(r).SetBool(!v.Bool()) })
	case reflect.Int64:
		member(path, func(r *bundle.Release) { at(r).SetInt(v.Int() + 1) })
	case reflect.Uint64:
		member(path, func(r *bundle.Release) { at(r).SetUint(v.Uint() + 1) })
	case reflect.Uint8: // a fail mode or durability
		member(path, func(r *bundle.Release) { at(r).SetUint((v.Uint() + 1) % 3) })
	default:
		panic(path + " is a " + v.Kind().String())
	}
}

func TestFollows(t *testing.T) {
	first := signed(t, parse(t, small, nil))
	second := signed(t, parse(t, small, first))
	rival := signed(t, parse(t, small+"note: rival\n", first))
	low := signed(t, parse(t, small, first))
	low.Epoch = 1
	for name, c := range map[string]struct {
		next, newest *bundle.SignedRelease
		want         error
	}{
		"the first":            {first, nil, nil},
		"the next":             {second, first, nil},
		"again":                {second, second, nil},
		"somebody was faster":  {second, rival, ErrNotNext},
		"a first one, again":   {signed(t, parse(t, small+"note: x\n", nil)), first, ErrNotNext},
		"of what is not there": {second, nil, ErrNotNext},
		"epoch does not rise":  {low, first, ErrNotNext},
	} {
		if err := Follows(c.next, c.newest); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRollback(t *testing.T) {
	first := signed(t, parse(t, small+"rings: [{name: a}]\nhalt: {traps: 1%}\nexpires: 1h\n", nil))
	second := signed(t, parse(t, strings.Replace(small, "a.hfp", "b.hfp", 1), first))
	back, err := Rollback(&first.Release, second, "INC-7", made.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if back.Epoch != 3 || back.Previous != second.Digest || back.Fallback != bundle.FallbackPrevious || back.Note != "INC-7" || back.Expires != 0 || len(back.Rings) != 0 {
		t.Errorf("%+v", back)
	}
	if !reflect.DeepEqual(back.Points, first.Points) {
		t.Errorf("%+v", back.Points)
	}
	if err := Follows(signed(t, back), second); err != nil {
		t.Error(err)
	}
	if len(first.Rings) != 1 {
		t.Error("the old release was changed")
	}
	other := *second
	other.Tenant = "umbrella"
	if _, err := Rollback(&first.Release, &other, "", made); err == nil {
		t.Error("to another tenant's")
	}
}

func TestBlobs(t *testing.T) {
	a := signed(t, parse(t, "tenant: acme\npoints: {input: {packages: [{file: b.hfp}, {file: a.hfp}]}, output: {packages: [{file: a.hfp}]}}", nil))
	got := Blobs(&a.Release)
	if len(got) != 2 || got[0].Hex() > got[1].Hex() {
		t.Error(got)
	}
}
