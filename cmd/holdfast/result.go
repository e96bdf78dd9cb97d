package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A result is the JSON of `up --demo --once`.
type result struct {
	Regions   int            `json:"regions"`
	Edges     int            `json:"edges"`
	Release   releaseResult  `json:"release"`
	Enforced  enforcedResult `json:"enforced"`
	Decisions decisionResult `json:"decisions"`
	Fsync     quantiles      `json:"fsync_us"`
	Cut       cutResult      `json:"cut"`
	// Kill is there in the story of a node without regions.
	Kill    *killResult   `json:"kill,omitempty"`
	Records recordsResult `json:"records"`
	// Verified is the word of a separate process with public keys only.
	Verified bool `json:"verified"`
}

type releaseResult struct {
	Epoch  uint64 `json:"epoch"`
	Digest string `json:"digest"`
}

type enforcedResult struct {
	Nodes       int `json:"nodes"`
	Of          int `json:"of"`
	Propagation struct {
		P50 float64 `json:"p50"`
		Max float64 `json:"max"`
	} `json:"propagation_ms"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max,omitempty"`
}

type decisionResult struct {
	Total      int            `json:"total"`
	ByVerdict  map[string]int `json:"by_verdict"`
	Failed     int            `json:"failed"`
	Durability string         `json:"durability"` // the weakest class that an answer met
	Decide     quantiles      `json:"decide_us"`
	Record     quantiles      `json:"record_us"`
}

type cutResult struct {
	Region    string  `json:"region"`
	Seconds   float64 `json:"seconds"`
	Decisions int     `json:"decisions"`
	Failed    int     `json:"failed"`
}

type killResult struct {
	Signal     string  `json:"signal"`
	DownMillis float64 `json:"down_ms"`    // from the kill until the same release was in force again
	Unanswered int     `json:"unanswered"` // requests that the dead node did not answer
}

// recordsResult counts decision records; administrative ones only in Admin.
type recordsResult struct {
	Answered uint64            `json:"answered"` // in the clients' hands
	Journal  uint64            `json:"journaled"`
	Regions  map[string]uint64 `json:"regions"`
	Lost     uint64            `json:"lost"`    // answered, and missing somewhere
	Doubled  uint64            `json:"doubled"` // there twice, or two answers with one name
	Gaps     uint64            `json:"gaps"`
	Altered  uint64            `json:"altered"` // there, with another leaf than was answered
	Admin    uint64            `json:"admin"`
}

// minDecisions is how many decisions the story must have asked for.
const minDecisions = 900

// faults lists what did not hold, in words; nil when everything did.
func (r *result) faults() (faults []string) {
	check := func(n uint64, what string) {
		if n != 0 {
			faults = append(faults, fmt.Sprintf("%d %s", n, what))
		}
	}
	check(uint64(r.Decisions.Failed), "decisions failed")
	check(uint64(r.Cut.Failed), "decisions failed during the cut")
	check(r.Records.Lost, "records lost")
	check(r.Records.Doubled, "records doubled")
	check(r.Records.Gaps, "gaps")
	check(r.Records.Altered, "records altered")
	// What was never tried cannot have held.
	if r.Decisions.Total < minDecisions || r.Records.Answered == 0 || r.Enforced.Of != r.Edges || r.Edges == 0 {
		faults = append(faults, fmt.Sprintf("too little was tried: %d decisions, %d answered, %d nodes", r.Decisions.Total, r.Records.Answered, r.Enforced.Of))
	}
	if len(r.Records.Regions) != r.Regions || r.Regions > 0 && r.Cut.Decisions == 0 || r.Regions == 0 && r.Kill == nil {
		faults = append(faults, "a chapter is missing")
	}
	for name, n := range r.Records.Regions {
		if n != r.Records.Journal {
			faults = append(faults, fmt.Sprintf("region %s holds %d of %d records", name, n, r.Records.Journal))
		}
	}
	if r.Enforced.Nodes != r.Enforced.Of {
		faults = append(faults, fmt.Sprintf("in force on %d of %d nodes", r.Enforced.Nodes, r.Enforced.Of))
	}
	if !r.Verified {
		faults = append(faults, "the ledger was not verified")
	}
	return faults
}

// sum turns the tally into the result.
func (s *story) sum() {
	t, r := s.tally, &s.result
	r.Regions, r.Edges = s.cfg.Regions, s.cfg.Edges
	r.Decisions = decisionResult{
		Total: t.decisions, Failed: t.failed, ByVerdict: map[string]int{}, Durability: policy.NotRecorded.String(),
		Decide: quantilesOf(t.decide), Record: quantilesOf(t.record),
	}
	for v, n := range t.verdicts {
		r.Decisions.ByVerdict[v.String()] = n
	}
	for _, d := range []policy.Durability{policy.NotRecorded, policy.Written, policy.Synced, policy.Region, policy.Regions} {
		if t.durability[d] > 0 {
			r.Decisions.Durability = d.String()
			break
		}
	}
	r.Records.Answered = uint64(len(t.answered))
	r.Records.Doubled += t.twice
}

func quantilesOf(d []time.Duration) quantiles {
	return quantiles{P50: micros(quantile(d, 0.5)), P99: micros(quantile(d, 0.99)), Max: micros(quantile(d, 1))}
}

// printSummary is what a person reads at the end.
func (s *story) printSummary(took time.Duration) {
	p, r := s.out, &s.result
	p.line("\n%s", p.bold("The proof"))
	p.line("  release %s", r.Release.Digest)
	p.line("  epoch %d, in force on %d of %d nodes, on the last of them %.1f ms after publishing", r.Release.Epoch, r.Enforced.Nodes, r.Enforced.Of, r.Enforced.Propagation.Max)
	p.line("  %d decisions, %d failed; deciding p50 %.0f us, p99 %.0f us; recording (%s) p50 %.0f us, p99 %.0f us",
		r.Decisions.Total, r.Decisions.Failed, r.Decisions.Decide.P50, r.Decisions.Decide.P99, r.Decisions.Durability, r.Decisions.Record.P50, r.Decisions.Record.P99)
	p.line("  one raw fsync on this disk: p50 %.0f us, p99 %.0f us", r.Fsync.P50, r.Fsync.P99)
	p.line("  records: %d answered, %d in the journals%s", r.Records.Answered, r.Records.Journal, s.regionCounts())
	p.line("  lost %d, doubled %d, gaps %d, altered %d; verified by a separate process with public keys: %t",
		r.Records.Lost, r.Records.Doubled, r.Records.Gaps, r.Records.Altered, r.Verified)
	for _, text := range s.tally.failures {
		p.line("  %s %s", p.red("failed:"), text)
	}
	verdict := p.green("ALL OF IT HELD")
	if len(r.faults()) > 0 {
		verdict = p.red("IT DID NOT HOLD")
	}
	p.line("\n%s in %.0f s", verdict, took.Seconds())
	if s.flags.dir != "" {
		p.line("%s", p.faint("the fleet's folder is "+s.cfg.Dir))
	}
}

func (s *story) regionCounts() (text string) {
	var names []string
	for name := range s.result.Records.Regions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf(", %d in region %s", s.result.Records.Regions[name], name)
	}
	return text
}
