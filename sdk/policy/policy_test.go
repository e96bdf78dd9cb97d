package policy_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func TestZeroValuesFailClosed(t *testing.T) {
	var d policy.Decision
	if d.Verdict != policy.Deny || d.Verdict.Permits() {
		t.Errorf("the zero decision is %v", d.Verdict)
	}
	var f policy.FailMode
	if f.Verdict() != policy.Deny {
		t.Errorf("the zero fail mode answers %v", f.Verdict())
	}
	var a policy.Answer
	if a.Recorded || a.Durability != policy.NotRecorded {
		t.Errorf("the zero answer claims a record: %+v", a)
	}
}

func TestCombiningOrder(t *testing.T) {
	want := "deny require_approval throttle transform allow"
	var names []string
	for _, v := range policy.Verdicts() {
		names = append(names, v.String())
		back, err := policy.ParseVerdict(v.String())
		if err != nil || back != v {
			t.Errorf("%v does not survive its name: %v, %v", v, back, err)
		}
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("order %q, want %q", got, want)
	}
}

const good = `{"id":"r1","subject":{"type":"agent","id":"a"},"action":{"name":"tools/call"},"resource":{"type":"tool","id":"t"},"context":{"n":9223372036854775807,"f":1.0,"big":9223372036854775810}}`

func TestParseRequest(t *testing.T) {
	r, err := policy.ParseRequest("tool.pre_call", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if r.Context["n"] != int64(9223372036854775807) || r.Context["f"] != 1.0 || r.Context["big"] != 9223372036854775810.0 {
		t.Errorf("numbers: %#v", r.Context)
	}
	doc, err := r.JSON()
	if err != nil || !json.Valid(doc) || !strings.Contains(string(doc), "9223372036854775810") || !strings.HasPrefix(string(doc), `{"point":"tool.pre_call","id"`) {
		t.Errorf("JSON: %s, %v", doc, err)
	}
	again, err := policy.ParseRequest("tool.pre_call", doc)
	if err != nil {
		t.Fatal(err)
	}
	if twice, _ := again.JSON(); string(twice) != string(doc) {
		t.Errorf("the JSON of a request that names its point changed:\n%s\n%s", doc, twice)
	}
}

func TestDocumentKeepsItsLiterals(t *testing.T) {
	for body, want := range map[string]string{
		`{"document": {"n":1.10, "b":9223372036854775809}}`: `{"n":1.10, "b":9223372036854775809}`,
		`{"document" :null}`:          `null`,
		` { "document":[1 , 2] } `:    `[1 , 2]`,
		`{"document":"x","id":"abc"}`: `"x"`,
	} {
		r, err := policy.ParseRequest("custom", []byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		doc, ok, err := r.DocumentJSON()
		if !ok || err != nil || string(doc) != want {
			t.Errorf("%s: document %s, %t, %v", body, doc, ok, err)
		}
		if full, err := r.JSON(); err != nil || !json.Valid(full) {
			t.Errorf("%s: JSON %s, %v", body, full, err)
		}
	}
}

func TestParseRequestSaysWhereAndWhy(t *testing.T) {
	deep := strings.Repeat("[", 33) + strings.Repeat("]", 33)
	for name, c := range map[string]struct {
		body, reason string
		line, col    int
	}{
		"empty":            {"", "ends too early", 1, 1},
		"not an object":    {"[]", "is a JSON object", 1, 1},
		"a word":           {"hello", "invalid character", 1, 1},
		"cut":              {`{"subject":{"type"`, "", 1, 19},
		"trailing":         {good + "\n{}", "after", 2, 0},
		"duplicate":        {"{\"id\":\"a\",\n \"id\":\"b\"}", "duplicate", 2, 2},
		"duplicate nested": {`{"context":{"a":1,"a":2}}`, "duplicate", 1, 19},
		"unknown member":   {`{"subjct":{}}`, `unknown member "subjct"`, 1, 0},
		"wrong type":       {`{"subject":"me"}`, "must be an object", 1, 0},
		"id is a number":   {`{"id":7}`, "must be a string", 1, 0},
		"no id":            {`{"subject":{"type":"agent"}}`, "type and an id", 1, 0},
		"no action name":   {`{"action":{}}`, "has a name", 1, 0},
		"missing input":    {`{"id":"x"}`, `"subject" is missing`, 1, 0},
		"missing resource": {`{"subject":{"type":"a","id":"b"},"action":{"name":"n"}}`, `"resource" is missing`, 1, 0},
		"overflow":         {`{"context":{"n":1e400}}`, "64-bit float", 1, 0},
		"NaN":              {`{"context":{"n":NaN}}`, "invalid character", 1, 17},
		"invalid UTF-8":    {"{\"id\":\"\xff\"}", "UTF-8", 1, 0},
		"lone surrogate":   {`{"id":"\ud800"}`, "", 1, 0},
		"other point":      {`{"point":"llm.pre_model"}`, `but "tool.pre_call" was asked`, 1, 0},
		"too deep":         {`{"context":{"x":` + deep + `}}`, "32 levels", 1, 0},
		"too long":         {`{"id":"` + strings.Repeat("x", policy.MaxRequestBytes) + `"}`, "at most 262144", 1, 0},
		"signals object":   {`{"signals":{}}`, "must be a list", 1, 0},
	} {
		_, err := policy.ParseRequest("tool.pre_call", []byte(c.body))
		var se *policy.SyntaxError
		if !errors.As(err, &se) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(se.Reason, c.reason) || se.Line != c.line || c.col != 0 && se.Col != c.col {
			t.Errorf("%s: %v; want line %d col %d, %q", name, err, c.line, c.col, c.reason)
		}
	}
}

func TestAnswerJSON(t *testing.T) {
	a := policy.Answer{Decision: policy.Decision{Verdict: policy.Allow, Epoch: 7}, Recorded: true, Durability: policy.Synced, Node: "n", Boot: "b", Seq: 3, Leaf: "00"}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"decision":true,"verdict":"allow","reasons":[],"obligations":[],"epoch":7,"recorded":true,"durability":"synced","node":"n","boot":"b","seq":3,"leaf":"00"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var back policy.Answer
	if err := json.Unmarshal(b, &back); err != nil || back.Seq != 3 || back.Verdict != policy.Allow {
		t.Errorf("%+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"decision":true,"verdict":"deny","durability":"none"}`), &back); err == nil {
		t.Error("an answer whose boolean contradicts its verdict was read")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"document":[1.10,{"a":null}]}`))
	f.Add([]byte(`{"signals":[{"detector":"d","score":0.5}],"supported_obligations":["redact"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := policy.ParseRequest("custom", body)
		if err != nil {
			var se *policy.SyntaxError
			if !errors.As(err, &se) || se.Line < 1 || se.Col < 1 || se.Offset > int64(len(body)) {
				t.Fatalf("error without a position inside the document: %#v", err)
			}
			return
		}
		doc, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if len(doc) > policy.MaxRequestBytes {
			return
		}
		if _, err := policy.ParseRequest("custom", doc); err != nil {
			t.Fatalf("%q was read, but its JSON %q was not: %v", body, doc, err)
		}
	})
}
