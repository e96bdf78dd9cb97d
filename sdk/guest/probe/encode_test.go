package probe_test

import "github.com/holdfast-policy/holdfast/internal/plaincbor"

// An answer is a decision as examples/README.md has it written, slow and obvious.
type answer struct {
	value       any // nil for none, null{} for null
	reasons     [][2]string
	verdict     string
	obligations []obligation
}

type obligation struct {
	id, typ    string
	properties map[string]any
}

type null = struct{}

func (a answer) encode() []byte {
	members := map[string]any{"verdict": a.verdict}
	if a.value != nil {
		members["value"] = a.value
	}
	var reasons, obligations []any
	for _, r := range a.reasons {
		reasons = append(reasons, map[string]any{"code": r[0], "text": r[1]})
	}
	for _, o := range a.obligations {
		m := map[string]any{"type": o.typ}
		if o.id != "" {
			m["id"] = o.id
		}
		if len(o.properties) > 0 {
			m["properties"] = o.properties
		}
		obligations = append(obligations, m)
	}
	if reasons != nil {
		members["reasons"] = reasons
	}
	if obligations != nil {
		members["obligations"] = obligations
	}
	return plaincbor.Append(nil, members)
}
