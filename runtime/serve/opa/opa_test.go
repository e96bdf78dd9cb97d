package opa_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/serve/opa"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// echo answers with the input; the transcript of OPA's own server is asked of a
// real node in internal/assembly.
type echo struct {
	answer policy.Answer
	err    error
}

func (e echo) Data(_ context.Context, _ []string, input []byte) (policy.Answer, []byte, error) {
	return e.answer, input, e.err
}

func ask(d opa.Decider, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	opa.Handler(d).ServeHTTP(w, r)
	return w
}

func post(body string, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", "/v1/data/a", strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func fromSite(site string) *http.Request {
	r := httptest.NewRequest("GET", "/v1/data/a?input=1", nil)
	r.Header.Set("Sec-Fetch-Site", site)
	return r
}

func TestRefusals(t *testing.T) {
	long := `{"input": "` + strings.Repeat("x", policy.MaxRequestBytes) + `"}`
	for name, c := range map[string]struct {
		request *http.Request
		err     error
		status  int
		code    string
	}{
		"too long":        {post(long), nil, 413, "invalid_parameter"},
		"YAML":            {post("input: 1", "Content-Type", "application/x-yaml"), nil, 400, "invalid_parameter"},
		"compressed":      {post("{}", "Content-Encoding", "gzip"), nil, 400, "invalid_parameter"},
		"strict built-in": {httptest.NewRequest("GET", "/v1/data/a?strict-builtin-errors", nil), nil, 400, "invalid_parameter"},
		"another site's":  {fromSite("cross-site"), nil, 403, "invalid_parameter"},
		"no request":      {post("{}"), &policy.SyntaxError{Reason: "too deep"}, 400, "invalid_parameter"},
		"no document":     {post("{}"), &policy.NoDocumentError{Reason: "fuel"}, 500, "internal_error"},
		"node in trouble": {post("{}"), errors.New("broken"), 500, "internal_error"},
	} {
		w := ask(echo{err: c.err}, c.request)
		var fault struct{ Code, Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &fault); err != nil || w.Code != c.status || fault.Code != c.code || fault.Message == "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestOwnPageMayAsk(t *testing.T) {
	for _, site := range []string{"same-origin", "none"} {
		if w := ask(echo{}, fromSite(site)); w.Code != 200 {
			t.Errorf("%s: %d %s", site, w.Code, w.Body)
		}
	}
}

func TestRecordIsNamed(t *testing.T) {
	a := policy.Answer{Recorded: true, Node: "n", Boot: "b", Seq: 7, Leaf: "ff"}
	if got := ask(echo{answer: a}, post("{}")).Header().Get(opa.RecordHeader); got != "n/b/7; leaf=ff" {
		t.Errorf("%q", got)
	}
	if got := ask(echo{answer: a, err: &policy.NoDocumentError{}}, post("{}")).Header().Get(opa.RecordHeader); got != "n/b/7; leaf=ff" {
		t.Errorf("of a failure: %q", got)
	}
	if got := ask(echo{}, post("{}")).Header().Get(opa.RecordHeader); got != "none" {
		t.Errorf("%q", got)
	}
}

func FuzzPost(f *testing.F) {
	f.Add(`{"input": {"a": 1.50}}`)
	f.Add(`{"input": null} trailing`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, body string) {
		w := ask(echo{}, post(body))
		if !json.Valid(w.Body.Bytes()) || w.Code != 200 && w.Code != 400 {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}
