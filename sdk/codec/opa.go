package codec

import (
	"encoding/json"
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// opa1 is JSON both ways. The input is the bare document when the request has
// one, undefined when the request is bare and has none, else the request with
// its point; number literals are kept.
type opa1 struct{}

func (opa1) Encode(r *policy.Request) ([]byte, error) {
	if doc, ok, err := r.DocumentJSON(); ok || r.Bare || err != nil {
		return doc, err
	}
	return r.JSON()
}

// Init merges the parameters into the package's data as data.params.
func (opa1) Init(params map[string]any, data []byte) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &doc); err != nil {
			return nil, fmt.Errorf("package data: %w", err)
		}
	}
	if len(params) > 0 || doc["params"] == nil {
		raw, err := json.Marshal(orEmpty(params))
		if err != nil {
			return nil, fmt.Errorf("parameters: %w", err)
		}
		doc["params"] = raw
	}
	return json.Marshal(doc)
}

// Decode reads opa_eval's result set: true is allow; false or undefined is
// deny; an object with a verdict, or with a boolean allow, is a decision;
// anything else is the value of a denial.
func (opa1) Decode(out []byte) (policy.Decision, error) {
	switch string(out) { // what most policies answer, as OPA writes it
	case `[{"result":true}]`:
		return policy.Decision{Verdict: policy.Allow}, nil
	case `[{"result":false}]`, `[]`:
		return policy.Decision{}, nil
	}
	result, defined, err := Result(out)
	if err != nil || !defined {
		return policy.Decision{}, err
	}
	switch v := result.(type) {
	case bool:
		return policy.Decision{Verdict: ofBool(v)}, nil
	case map[string]any:
		if _, ok := v["verdict"]; ok {
			return decision(v)
		}
		if allow, ok := v["allow"].(bool); ok {
			return allowObject(v, allow)
		}
	}
	return policy.Decision{Value: result}, nil
}

// Result returns the value in OPA's result set, and false when it is undefined.
func Result(out []byte) (value any, defined bool, err error) {
	doc, err := policy.ParseValue(out)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrOutput, err)
	}
	set, ok := doc.([]any)
	if !ok || len(set) > 1 {
		return nil, false, fmt.Errorf("%w: not a result set of at most one result", ErrOutput)
	}
	if len(set) == 0 {
		return nil, false, nil
	}
	row, ok := set[0].(map[string]any)
	if !ok {
		return nil, false, fmt.Errorf("%w: a result that is not an object", ErrOutput)
	}
	value, defined = row["result"]
	return value, defined, nil
}

func ofBool(allow bool) policy.Verdict {
	if allow {
		return policy.Allow
	}
	return policy.Deny
}

func decision(m map[string]any) (d policy.Decision, err error) {
	for name, v := range m {
		switch name {
		case "verdict":
			word, _ := v.(string)
			d.Verdict, err = policy.ParseVerdict(word)
		case "reasons":
			d.Reasons, err = reasons(v)
		case "obligations":
			d.Obligations, err = obligations(v)
		case "value":
			d.Value = v
		default:
			err = fmt.Errorf("unknown member %q in a decision", name)
		}
		if err != nil {
			return policy.Decision{}, fmt.Errorf("%w: %w", ErrOutput, err)
		}
	}
	return checked(d)
}

// allowObject reads the object that many OPA policies answer. Members beyond
// allow, reasons and obligations make the whole object the value.
func allowObject(m map[string]any, allow bool) (d policy.Decision, err error) {
	d.Verdict = ofBool(allow)
	known := 1
	if v, ok := m["reasons"]; ok {
		known++
		if d.Reasons, err = reasons(v); err != nil {
			return policy.Decision{}, fmt.Errorf("%w: %w", ErrOutput, err)
		}
	}
	if v, ok := m["obligations"]; ok {
		known++
		if d.Obligations, err = obligations(v); err != nil {
			return policy.Decision{}, fmt.Errorf("%w: %w", ErrOutput, err)
		}
	}
	if len(m) > known {
		d.Value = m
	}
	return checked(d)
}

func reasons(v any) ([]policy.Reason, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("reasons must be a list or set")
	}
	out := make([]policy.Reason, 0, len(list))
	for _, e := range list {
		m, _ := e.(map[string]any)
		code, okCode := m["code"].(string)
		text, okText := m["text"].(string)
		if !okCode || (!okText && m["text"] != nil) {
			return nil, fmt.Errorf("a reason is {code, text}, both strings")
		}
		out = append(out, policy.Reason{Code: code, Text: text})
	}
	return out, nil
}

func obligations(v any) ([]policy.Obligation, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("obligations must be a list or set")
	}
	out := make([]policy.Obligation, 0, len(list))
	for _, e := range list {
		m, _ := e.(map[string]any)
		kind, ok := m["type"].(string)
		if !ok {
			return nil, fmt.Errorf("an obligation is {type, id?, properties?}")
		}
		id, _ := m["id"].(string)
		properties, _ := m["properties"].(map[string]any)
		out = append(out, policy.Obligation{ID: id, Type: kind, Properties: properties})
	}
	return out, nil
}
