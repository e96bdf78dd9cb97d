package policy_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

const wholeResult = `{"node":"edge-1","boot":"00000001-0123456789abcdef","seq":7,"usage":{"input_tokens":1200,"output_tokens":80,"cost_micros":4100,"currency":"EUR"},` +
	`"finish_reason":"stop","error":"none","ended_at":"2026-01-02T03:04:05.6Z","output_digest":"sha256:` + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + `",` +
	`"served":"m-1","obligations":[{"id":"o","type":"redact","status":"failed","error":"no"}]}`

func TestParseResult(t *testing.T) {
	r, err := policy.ParseResult([]byte(wholeResult))
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r)
	if err != nil || string(out) != wholeResult {
		t.Errorf("%s, %v", out, err)
	}
	named := `{"boot":"b","seq":1`
	if r, err := policy.ParseResult([]byte(named + `}`)); err != nil || !reflect.DeepEqual(r, &policy.Result{Boot: "b", Seq: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	for body, want := range map[string]string{
		``: "line 1", `[]`: "JSON object", `{}`: `"boot" and "seq"`, `{"boot":"b"}`: `"boot" and "seq"`, `{"boot":"b","seq":0}`: `"boot" and "seq"`,
		`{"boot":"b","seq":-1}`: "not negative", `{"boot":"b","seq":1.5}`: "whole number", `{"boot":1,"seq":1}`: "must be a string",
		named + `,"x":1}`: "unknown member", named + `,"seq":1}`: "duplicate", named + `} x`: "line 1",
		named + `,"usage":{"tokens":1}}`: "unknown member", named + `,"usage":[]}`: "must be an object", named + `,"usage":{"currency":"euro"}}`: "ISO 4217",
		named + `,"ended_at":"now"}`: "RFC 3339", named + `,"output_digest":"sha256:AB"}`: "64 lower-case",
		named + `,"obligations":[{"id":"o"}]}`: "has a status", named + `,"obligations":[{"status":"done"}]}`: "id or type",
		named + `,"obligations":[{"id":"o","status":"ok"}]}`:                                                            "done, failed or skipped",
		named + `,"obligations":[` + strings.Repeat(`{"id":"o","status":"done"},`, 64) + `{"id":"o","status":"done"}]}`: "more than 64",
		named + `,"error":"` + strings.Repeat("x", policy.MaxResultBytes) + `"}`:                                        "at most",
	} {
		if _, err := policy.ParseResult([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", body, err, want)
		}
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add([]byte(wholeResult))
	f.Add([]byte(`{"boot":"b","seq":1,"usage":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := policy.ParseResult(body)
		if err != nil {
			return
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := policy.ParseResult(out)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%s: %s: %v", body, out, err)
		}
	})
}
