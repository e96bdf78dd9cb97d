package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/holdfast-policy/holdfast/compiler/rego/backend"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// indexReport reads what the module says of its rule index; nil when it has none.
func indexReport(module []byte) *backend.Report {
	raw := wasm.Custom(module, backend.ReportSection)
	var r backend.Report
	if raw == nil || json.Unmarshal(raw, &r) != nil {
		return nil
	}
	return &r
}

// describeIndex says in one line what the index does for a document.
func describeIndex(r *backend.RuleReport) string {
	var parts []string
	for _, l := range r.Indexed {
		if l.Else {
			parts = append(parts, fmt.Sprintf("%d branches of an else chain by %s", l.Definitions, l.Ref))
		} else {
			parts = append(parts, fmt.Sprintf("%d by %s (%d constants)", l.Definitions, l.Ref, l.Constants))
		}
	}
	if r.Always > 0 {
		parts = append(parts, fmt.Sprintf("%d tried always: no test for equality with a constant, or too few with the same", r.Always))
	}
	if r.EarlyExit {
		parts = append(parts, "the first that holds decides")
	}
	return printable(fmt.Sprintf("%s, %d definitions: %s", r.Path, r.Definitions, strings.Join(parts, "; ")))
}

// printable takes out what could move a terminal's cursor: the module wrote it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
