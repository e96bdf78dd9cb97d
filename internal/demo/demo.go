// Package demo makes the requests that the demo sends: 956 real tool calls of
// AI agents, and tampered copies of them, each with the verdict that it must get.
package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/testdata/toolcalls"
)

// A Call is one request and what must come of it.
type Call struct {
	ID    string // of the row; a tampered copy adds "+" and what was done
	Point string
	Body  []byte // the JSON request
	Want  policy.Verdict
	// Code is a reason code that a denial must carry; "" when the call is allowed.
	Code string
	// Tampering says what was done to the call; "" when it is as the source has it.
	Tampering string
}

// Calls returns every call of the source, and tampered copies of more than a
// third of them, in an order that seed decides. The same seed gives the same calls.
func Calls(seed uint64) ([]Call, error) {
	rows, err := parse(toolcalls.JSONL())
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	calls := make([]Call, 0, len(rows)*3/2)
	for i, r := range rows {
		c, err := r.call()
		if err != nil {
			return nil, err
		}
		calls = append(calls, c)
		tampered, err := r.tampered(rng, i%3 == 0)
		if err != nil {
			return nil, err
		}
		calls = append(calls, tampered...)
	}
	rng.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	return calls, nil
}

// A row is one line of the source.
type row struct {
	id, user, tool, role string
	schema               map[string]any
	arguments            map[string]any
}

func parse(lines string) ([]row, error) {
	var rows []row
	dec := json.NewDecoder(strings.NewReader(lines))
	dec.UseNumber()
	for {
		var line struct {
			ID, User string
			Tools    []struct {
				Name       string
				Parameters map[string]any
			}
			Call struct {
				Name      string
				Arguments map[string]any
			}
		}
		if err := dec.Decode(&line); err == io.EOF {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("tool call %d: %w", len(rows)+1, err)
		}
		for _, t := range line.Tools {
			if t.Name == line.Call.Name {
				r := row{line.ID, line.User, t.Name, roleFor(t.Name), t.Parameters, line.Call.Arguments}
				settle(r.schema, r.arguments)
				rows = append(rows, r)
				break
			}
		}
	}
}

// settle undoes two habits of the source: "" for an argument that is left out,
// and nested values wrapped in a list of one.
func settle(schema map[string]any, arguments map[string]any) {
	properties, _ := schema["properties"].(map[string]any)
	for name, v := range arguments {
		declared, _ := properties[name].(map[string]any)
		if v == "" && !slices.Contains(required(schema), name) {
			delete(arguments, name)
			continue
		}
		if list, ok := v.([]any); ok && len(list) == 1 && isScalar(declared["type"]) {
			arguments[name] = list[0]
		}
		items, _ := declared["items"].(map[string]any)
		for _, nested := range asList(v) {
			if m, ok := nested.(map[string]any); ok && items != nil {
				settle(items, m)
			} else if ok {
				settle(declared, m)
			}
		}
	}
}

func asList(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

func isScalar(t any) bool {
	return t == "string" || t == "integer" || t == "float" || t == "number" || t == "boolean"
}

func required(schema map[string]any) (names []string) {
	list, _ := schema["required"].([]any)
	for _, name := range list {
		if s, ok := name.(string); ok {
			names = append(names, s)
		}
	}
	return names
}

// call is the row as the source has it.
func (r row) call() (Call, error) {
	c := Call{ID: r.id, Point: policy.PointPreCall, Want: policy.Allow, Code: contradictions()[r.id]}
	if c.Code != "" {
		c.Want = policy.Deny
	}
	var err error
	c.Body, err = r.body()
	return c, err
}

// body is the request as an agent's gateway would send it.
func (r row) body() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(map[string]any{
		"id":       r.id,
		"subject":  map[string]any{"type": "agent", "id": "agent-" + r.role, "properties": map[string]any{"role": r.role}},
		"action":   map[string]any{"name": "tools/call"},
		"resource": map[string]any{"type": "tool", "id": r.tool, "properties": map[string]any{"declaration": r.schema}},
		"context":  map[string]any{"arguments": r.arguments, "user": r.user},
	})
	if err != nil {
		return nil, fmt.Errorf("tool call %s: %w", r.id, err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// contradictions are the calls of the source that contradict their own
// declarations, with the reason code that tool-authz finds.
func contradictions() map[string]string {
	return map[string]string{
		"live_multiple_964-207-0":  "argument_missing",
		"live_simple_106-63-0":     "argument_missing",
		"live_simple_112-68-0":     "argument_missing",
		"live_multiple_862-181-3":  "argument_unknown",
		"live_multiple_302-131-1":  "argument_type",
		"live_multiple_304-131-3":  "argument_type",
		"live_multiple_306-131-5":  "argument_type",
		"live_multiple_308-131-7":  "argument_type",
		"live_multiple_552-153-1":  "argument_type",
		"live_multiple_596-158-2":  "argument_type",
		"live_multiple_732-167-3":  "argument_type",
		"live_multiple_734-167-5":  "argument_type",
		"live_multiple_736-167-7":  "argument_type",
		"live_multiple_750-169-5":  "argument_enum",
		"live_multiple_756-169-11": "argument_enum",
	}
}
