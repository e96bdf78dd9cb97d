package backend

import "encoding/json"

// ReportSection is the name of the custom section that holds the Report as JSON.
const ReportSection = "holdfast.index"

// Report says what the index does for each document and function.
type Report struct {
	Rules []RuleReport `json:"rules"`
}

// RuleReport is about the definitions of one name.
type RuleReport struct {
	Path        string `json:"path"`
	Definitions int    `json:"definitions"`
	// Indexed are the look-ups that decide which definitions are tried.
	Indexed []Lookup `json:"indexed,omitempty"`
	// Always is the number of definitions that are tried every time: they have no
	// test for equality with a constant, or too few others test the same.
	Always int `json:"always,omitempty"`
	// EarlyExit says that the first definition that holds decides, because all
	// give the same constant.
	EarlyExit bool `json:"early_exit,omitempty"`
}

// Lookup is one look-up of an index.
type Lookup struct {
	Ref         string `json:"ref"`
	Definitions int    `json:"definitions"`         // or bodies of a chain
	Constants   int    `json:"constants,omitempty"` // that they compare with
	Else        bool   `json:"else,omitempty"`      // within one else chain
}

// Documents returns how many documents and functions the report is about; a nil
// report is about none.
func (r *Report) Documents() int {
	if r == nil {
		return 0
	}
	return len(r.Rules)
}

func (r *Report) begin(path string, definitions int, early bool) {
	r.Rules = append(r.Rules, RuleReport{Path: path, Definitions: definitions, EarlyExit: early})
}

func (r *Report) last() *RuleReport { return &r.Rules[len(r.Rules)-1] }

func (r *Report) selector(ref string, definitions, constants int) {
	r.last().Indexed = append(r.last().Indexed, Lookup{Ref: ref, Definitions: definitions, Constants: constants})
}

func (r *Report) chain(ref string, bodies int) {
	r.last().Indexed = append(r.last().Indexed, Lookup{Ref: ref, Definitions: bodies, Else: true})
}

func (r *Report) others(n int) { r.last().Always = n }

// encode returns the section's content; what has one definition and no index is
// left out.
func (r *Report) encode() []byte {
	kept := Report{Rules: []RuleReport{}}
	for _, rule := range r.Rules {
		if rule.Definitions > 1 || len(rule.Indexed) > 0 {
			kept.Rules = append(kept.Rules, rule)
		}
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return nil // strings and numbers always have JSON
	}
	return raw
}
