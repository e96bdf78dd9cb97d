package rollout_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/rollout"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

// TestTranscripts plays testdata/*.txt: lines that begin with ">" are what comes
// out, everything else is what happens.
//
//	ring NAME LABEL=VALUE PERCENT shadow DECISIONS SECONDS bake DECISIONS SECONDS
//	audience LABEL=VALUE
//	halt traps|drift|latency|deny|min N
//	node NAME [LABEL=VALUE]
//	say NAME shadow|live|fallback|refused|away|back [decisions N] [traps N] ...
//	after SECONDS
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(script))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(script) {
				t.Errorf("the transcript is now:\n%s", got)
			}
		})
	}
}

// stage is a fleet in a transcript.
type stage struct {
	t       *testing.T
	release bundle.SignedRelease
	nodes   []rollout.Node
	current *bundle.Order
	now     time.Time
}

func play(t *testing.T, script string) string {
	s := &stage{t: t, now: time.Unix(1_800_000_000, 0)}
	s.release.Tenant, s.release.Epoch, s.release.Digest = "demo", 7, wire.Sum([]byte("candidate"))
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.do(strings.Fields(line))
		if s.current != nil || line == "begin" {
			s.steps(&out)
		}
	}
	return out.String()
}

// steps prints every order that follows now.
func (s *stage) steps(out *strings.Builder) {
	for {
		var next *bundle.Order
		if s.current == nil {
			first := rollout.First(&s.release)
			next = &first
		} else if next = rollout.Next(&s.release, s.current, s.nodes, s.now); next == nil {
			return
		}
		if s.current != nil && next.Serial != s.current.Serial+1 {
			s.t.Fatalf("serial %d after %d", next.Serial, s.current.Serial)
		}
		next.Created = s.now.UnixNano()
		s.current = next
		fmt.Fprintf(out, "> %d %s [%s] %s\n", next.Serial, next.State, strings.Join(next.Rings, " "), next.Reason)
	}
}

func (s *stage) do(f []string) {
	switch f[0] {
	case "begin":
	case "ring":
		name, value, _ := strings.Cut(f[2], "=")
		labels := map[string]string{name: value}
		if f[2] == "-" {
			labels = nil
		}
		s.release.Rings = append(s.release.Rings, bundle.Ring{
			Name: f[1], Labels: labels, Percent: s.number(f[3]),
			Shadow: bundle.Bake{Decisions: s.number(f[5]), Seconds: int64(s.number(f[6]))},
			Bake:   bundle.Bake{Decisions: s.number(f[8]), Seconds: int64(s.number(f[9]))},
		})
	case "audience":
		name, value, _ := strings.Cut(f[1], "=")
		s.release.Audience = map[string]string{name: value}
	case "halt":
		into := map[string]*uint64{
			"traps": &s.release.Halt.TrapsPerMillion, "drift": &s.release.Halt.DriftPerMillion, "latency": &s.release.Halt.LatencyMicros,
			"deny": &s.release.Halt.DenyPerMillion, "min": &s.release.Halt.MinDecisions,
		}
		*into[f[1]] = s.number(f[2])
	case "node":
		n := rollout.Node{Name: f[1], Labels: map[string]string{}}
		for _, l := range f[2:] {
			name, value, _ := strings.Cut(l, "=")
			n.Labels[name] = value
		}
		s.nodes = append(s.nodes, n)
	case "say":
		s.say(f[1], f[2], f[3:])
	case "after":
		s.now = s.now.Add(time.Duration(s.number(f[1])) * time.Second)
	default:
		s.t.Fatalf("unknown line %q", f)
	}
}

// say has nodes attest; "*" is every node.
func (s *stage) say(name, what string, counts []string) {
	for i := range s.nodes {
		n := &s.nodes[i]
		if name != "*" && n.Name != name {
			continue
		}
		a := audit.Attestation{Epoch: 6, Enforced: wire.Sum([]byte("old"))}
		seen := &a.Live
		n.Away = what == "away"
		switch what {
		case "away":
			continue
		case "old":
		case "shadow":
			a.Candidate, seen = s.release.Digest, &a.Shadow
		case "live":
			a.Epoch, a.Release, a.Enforced = 7, s.release.Digest, s.release.Digest
		case "fallback":
			a.Epoch, a.Release, a.Fallback = 7, s.release.Digest, true
		case "refused":
			a.Candidate, a.Refused = s.release.Digest, "golden vectors failed"
		default:
			s.t.Fatalf("nodes do not say %q", what)
		}
		s.counts(&a, seen, counts)
		n.Attestation = &a
	}
}

func (s *stage) counts(a *audit.Attestation, seen *audit.Observed, counts []string) {
	for i := 0; i+1 < len(counts); i += 2 {
		n := s.number(counts[i+1])
		switch counts[i] {
		case "decisions":
			seen.Decisions = n
		case "traps":
			seen.Traps = n
		case "differ":
			seen.Differ = n
		case "denied":
			seen.Denied = n
		case "p99us":
			seen.P99 = int64(n) * 1000
		case "failed":
			a.Vectors.Failed = n
		case "disagreed":
			a.Second.Samples, a.Second.Disagreed = 100, n
		default:
			s.t.Fatalf("unknown count %q", counts[i])
		}
	}
}

func (s *stage) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// What a node says may have lines and be long; the order that halts is valid all the same.
func TestHaltedByManyLines(t *testing.T) {
	rel := &bundle.SignedRelease{Release: bundle.Release{Tenant: "acme", Epoch: 7, Rings: []bundle.Ring{{Name: "all", Percent: 100}}}}
	rel.Digest = wire.Sum([]byte("release"))
	first := rollout.First(rel)
	for _, said := range []string{"vector a\nvector b\tfailed\x00", strings.Repeat("\u00e9", 4000), "\xff"} {
		next := rollout.Next(rel, &first, []rollout.Node{{Name: "a", Attestation: &audit.Attestation{Candidate: rel.Digest, Refused: said}}}, time.Unix(1, 0))
		if next == nil || next.State != bundle.RolloutHalted {
			t.Fatalf("%q: %+v", said, next)
		}
		next.Region, next.Created = "eu", time.Now().UnixNano()
		key, err := bundle.GenerateKey(bundle.RoleHeartbeat, "eu")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.SignOrder(next, key); err != nil {
			t.Errorf("%.20q: %v", said, err)
		}
	}
}

// Next leaves the order that it follows as it was: it is the stored one.
func TestNextLeavesCurrent(t *testing.T) {
	rel := &bundle.SignedRelease{Release: bundle.Release{Tenant: "acme", Epoch: 7, Rings: []bundle.Ring{{Name: "one", Percent: 50}, {Name: "all", Percent: 100}}}}
	rel.Digest = wire.Sum([]byte("release"))
	current := rollout.First(rel)
	var nodes []rollout.Node
	for i := range 20 {
		nodes = append(nodes, rollout.Node{Name: strconv.Itoa(i), Attestation: &audit.Attestation{Enforced: rel.Digest}})
	}
	next := rollout.Next(rel, &current, nodes, time.Now())
	if next == nil || next.Rings[1] != bundle.PhaseActive || current.Rings[1] != bundle.PhaseWaiting || current.Serial != 1 {
		t.Errorf("after %+v: %+v", current, next)
	}
}

// What a node found wrong with another release does not halt this one.
func TestOthersTrouble(t *testing.T) {
	rel := &bundle.SignedRelease{Release: bundle.Release{Tenant: "acme", Epoch: 7, Rings: []bundle.Ring{{Name: "all", Percent: 100, Bake: bundle.Bake{Seconds: 3600}}}}}
	rel.Digest = wire.Sum([]byte("release"))
	other := wire.Sum([]byte("other"))
	current := rollout.First(rel)
	current.Created = time.Now().UnixNano()
	for what, a := range map[string]audit.Attestation{
		"a fallback of another epoch":    {Epoch: 6, Release: other, Fallback: true},
		"a refusal of another candidate": {Enforced: rel.Digest, Candidate: other, Refused: "no"},
		"vectors of another release":     {Enforced: other, Vectors: audit.VectorRun{Failed: 1}},
		"a second engine on another":     {Enforced: other, Second: audit.SecondRun{Samples: 1, Disagreed: 1}},
	} {
		if next := rollout.Next(rel, &current, []rollout.Node{{Name: "a", Attestation: &a}}, time.Now()); next != nil {
			t.Errorf("%s: %s", what, next.Reason)
		}
	}
}
