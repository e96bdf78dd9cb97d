package rollout

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// trouble says why the rollout must halt, "" when it need not. What a single
// node found - vectors, the second engine, a refusal, a fallback - counts at once;
// rates count over each ring when it has made enough decisions.
func trouble(rel *bundle.SignedRelease, o *bundle.Order, rings [][]Node) string {
	for i, ring := range rings {
		if o.Rings[i] == bundle.PhaseWaiting {
			continue
		}
		for _, n := range ring {
			if n.Attestation == nil {
				continue
			}
			if why := found(rel, n.Attestation); why != "" {
				return fmt.Sprintf("node %s: %s", n.Name, why)
			}
		}
		if why := rates(rel, ring); why != "" {
			return fmt.Sprintf("ring %s: %s", rel.Rings[i].Name, why)
		}
	}
	return ""
}

// maxReason bounds why a rollout halted, in bytes.
const maxReason = 1 << 10

// line makes one line of a reason, which may hold what a node said: an order
// with another text would not be valid, and nothing would be halted.
func line(why string) string {
	why = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(why, "?"))
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "")
	}
	return why
}

// found is what a node itself has found wrong with the release.
func found(rel *bundle.SignedRelease, a *audit.Attestation) string {
	switch {
	case a.Fallback && a.Epoch == rel.Epoch && a.Release == rel.Digest:
		return "stepped back to the fallback"
	case a.Candidate == rel.Digest && a.Refused != "":
		return "refused: " + a.Refused
	case a.Enforced != rel.Digest:
		return ""
	case a.Vectors.Failed > 0:
		return fmt.Sprintf("%d golden vectors failed", a.Vectors.Failed)
	case a.Second.Disagreed > 0:
		return fmt.Sprintf("the second engine disagreed on %d of %d decisions", a.Second.Disagreed, a.Second.Samples)
	}
	return ""
}

// latencyDecisions are needed on a node before its 99th percentile is believed:
// then at least three were slow, and not one that a hiccup hit.
const latencyDecisions = 300

// rates compares a ring's rates with the release's thresholds.
func rates(rel *bundle.SignedRelease, ring []Node) string {
	limit := rel.Halt.Thresholds()
	var live, shadow audit.Observed
	for _, n := range ring {
		if n.Attestation == nil {
			continue
		}
		if o, ok := observedLive(rel, n.Attestation); ok {
			live = add(live, o)
			if o.Decisions >= max(limit.MinDecisions, latencyDecisions) && o.P99 > int64(limit.LatencyMicros)*int64(time.Microsecond) {
				return fmt.Sprintf("node %s decides in %v at p99, more than %d us", n.Name, time.Duration(o.P99), limit.LatencyMicros)
			}
		}
		if o, ok := observedShadow(rel, n.Attestation); ok {
			shadow = add(shadow, o)
		}
	}
	for _, r := range []struct {
		what       string
		count, of  uint64
		perMillion uint64
	}{
		{"calls in force trapped", live.Traps, live.Decisions, limit.TrapsPerMillion},
		{"calls in the shadow trapped", shadow.Traps, shadow.Decisions, limit.TrapsPerMillion},
		{"decisions in the shadow differ", shadow.Differ, shadow.Decisions, limit.DriftPerMillion},
		{"decisions deny", live.Denied, live.Decisions, limit.DenyPerMillion},
		{"decisions in the shadow deny", shadow.Denied, shadow.Decisions, limit.DenyPerMillion},
	} {
		if r.perMillion > 0 && r.of >= limit.MinDecisions && over(r.count, r.of, r.perMillion) {
			return fmt.Sprintf("%d of %d %s, more than %d in a million", r.count, r.of, r.what, r.perMillion)
		}
	}
	return ""
}

// over reports whether count of n is more than limit in a million.
func over(count, n, limit uint64) bool { return float64(count)*1e6 > float64(limit)*float64(n) }

func add(a, b audit.Observed) audit.Observed {
	return audit.Observed{
		Decisions: a.Decisions + b.Decisions, Denied: a.Denied + b.Denied, Traps: a.Traps + b.Traps,
		Differ: a.Differ + b.Differ, P99: max(a.P99, b.P99),
	}
}
