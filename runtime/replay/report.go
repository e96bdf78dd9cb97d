package replay

import (
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A Report is what a replay found, in the JSON of `ledger replay`. The members
// from Exact to Unknown add up to Decisions.
type Report struct {
	// Decisions are the decision records that came.
	Decisions uint64 `json:"decisions"`
	// Exact gave the same bytes again. Against a candidate: Same decisions.
	Exact uint64 `json:"exact"`
	// Different gave others. Against a candidate: decisions that would change.
	Different uint64 `json:"different"`
	// Masked and Erased lack a part of what was asked, and are not decided again.
	Masked uint64 `json:"masked"`
	Erased uint64 `json:"erased"`
	// Judged are those that no policy decided, by what decided instead; what their
	// records say of themselves is held against the rule. See the Judged constants.
	Judged map[string]uint64 `json:"judged"`
	// Unknown name a release or a package that is not at hand, or an activation
	// that is not in the export.
	Unknown uint64 `json:"unknown"`
	// What counts the different ones by what differs: verdict, reasons, obligations,
	// value, and, when the same release decided, runs, failure and logs.
	What map[string]uint64 `json:"what"`
	// Points, Verdicts and Rules count the different ones by point, by what became
	// of the verdict, and by reason code.
	Points   map[string]uint64 `json:"points"`
	Verdicts map[string]uint64 `json:"verdicts"`
	Rules    map[string]Rule   `json:"rules"`
	// Problems explains the first hundred.
	Problems []string `json:"problems"`
}

// A Rule counts what became of one reason code in the decisions that differ.
type Rule struct {
	// New is how many give it that did not, Gone how many gave it and do not.
	New  uint64 `json:"new"`
	Gone uint64 `json:"gone"`
}

// What decided in the place of a policy.
const (
	JudgedKill     = "kill"       // a kill stopped the request before any policy was asked
	JudgedNotReady = "not_ready"  // no release was in force
	JudgedStale    = "stale"      // the point was stale; only against a candidate, else decided again
	JudgedHost     = "host_error" // the node's own failure stood in the way of a module
	JudgedInstead  = "instead"    // what was answered for a decision whose record did not reach its regions in time
)

func newReport() *Report {
	return &Report{
		Judged: map[string]uint64{}, What: map[string]uint64{}, Points: map[string]uint64{},
		Verdicts: map[string]uint64{}, Rules: map[string]Rule{}, Problems: []string{},
	}
}

// Equal reports whether every decision that could be decided again gave what was
// recorded, and none was left out for want of its packages.
func (r *Report) Equal() bool { return r.Different == 0 && r.Unknown == 0 }

const maxProblems = 100

func (r *Report) problem(node, boot string, seq uint64, err error) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf("%s/%s record %d: %v", node, boot, seq, err))
	}
}

// add takes another report's counts in.
func (r *Report) add(o *Report) {
	r.Decisions += o.Decisions
	r.Exact += o.Exact
	r.Different += o.Different
	r.Masked += o.Masked
	r.Erased += o.Erased
	r.Unknown += o.Unknown
	for _, m := range []struct{ into, from map[string]uint64 }{
		{r.Judged, o.Judged}, {r.What, o.What}, {r.Points, o.Points}, {r.Verdicts, o.Verdicts},
	} {
		for k, n := range m.from {
			m.into[k] += n
		}
	}
	for code, n := range o.Rules {
		have := r.Rules[code]
		r.Rules[code] = Rule{have.New + n.New, have.Gone + n.Gone}
	}
	for _, p := range o.Problems {
		if len(r.Problems) < maxProblems {
			r.Problems = append(r.Problems, p)
		}
	}
}

// A Difference is a decision that is not what was recorded.
type Difference struct {
	Node     string       `json:"node"`
	Boot     string       `json:"boot"`
	Seq      uint64       `json:"seq"`
	Time     int64        `json:"time"` // nanoseconds since 1970
	Point    string       `json:"point"`
	Request  string       `json:"request_id,omitempty"`
	Subject  audit.Entity `json:"subject"`
	Action   string       `json:"action"`
	Resource audit.Entity `json:"resource"`
	// What differs: see Report.What.
	What []string `json:"what"`
	// Recorded is what the node answered, Now what comes of it now.
	Recorded Said `json:"recorded"`
	Now      Said `json:"now"`
}

// Said is a decision in short.
type Said struct {
	Verdict string   `json:"verdict"`
	Reasons []string `json:"reasons"` // codes
	Fuel    uint64   `json:"fuel"`
}

// count adds a difference.
func (r *Report) count(d *Difference) {
	r.Different++
	for _, what := range d.What {
		r.What[what]++
	}
	r.Points[d.Point]++
	if d.Recorded.Verdict != d.Now.Verdict {
		r.Verdicts[d.Recorded.Verdict+" -> "+d.Now.Verdict]++
	}
	for _, code := range missing(d.Now.Reasons, d.Recorded.Reasons) {
		rule := r.Rules[code]
		rule.New++
		r.Rules[code] = rule
	}
	for _, code := range missing(d.Recorded.Reasons, d.Now.Reasons) {
		rule := r.Rules[code]
		rule.Gone++
		r.Rules[code] = rule
	}
}

// missing returns which of codes are not among others, each once.
func missing(codes, others []string) (out []string) {
	have := map[string]bool{}
	for _, c := range others {
		have[c] = true
	}
	for _, c := range codes {
		if !have[c] {
			have[c] = true
			out = append(out, c)
		}
	}
	return out
}
