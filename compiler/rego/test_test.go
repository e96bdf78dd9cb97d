package rego_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

// A test reaches no network, and says so by failing.
func TestTestsReachNoNetwork(t *testing.T) {
	var hits atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer server.Close()
	found, err := rego.Test(t.Context(), folder("p.rego", allowX, "p_test.rego",
		`package p_test

test_net if http.send({"method": "get", "url": "`+server.URL+`"}).status_code == 200
`), rego.TestOptions{})
	if err != nil || len(found.Tests) != 1 || found.Tests[0].Outcome != rego.Failed || hits.Load() != 0 {
		t.Errorf("%+v, %v, %d requests", found, err, hits.Load())
	}
}

// A bundle's folder may have tests too, and they see the parameters.
func TestTests(t *testing.T) {
	files := folder(".manifest", `{"roots": ["p", "p_test"]}`, "p.rego", "package p\n\nallow if data.params.on\n",
		"p_test.rego", "package p_test\n\ntest_on if data.p.allow\n\ntest_off if not data.p.allow with data.params.on as false\n\nhelper := 1\n")
	found, err := rego.Test(t.Context(), files, rego.TestOptions{Params: map[string]any{"on": true}, Coverage: true})
	if err != nil || len(found.Tests) != 2 || found.Tests[0].Outcome != rego.Passed || found.Tests[1].Outcome != rego.Passed {
		t.Fatalf("%+v, %v", found, err)
	}
	if c := found.Coverage; c == nil || c.Percent != 100 || len(c.Files) != 1 || c.Files[0].File != "p.rego" {
		t.Errorf("%+v", c)
	}
	if found, err := rego.Test(t.Context(), files, rego.TestOptions{Run: "test_off$"}); err != nil || len(found.Tests) != 1 {
		t.Errorf("one of two: %+v, %v", found, err)
	}
	files["data.json"] = folder("x", `{"params": {}}`)["x"]
	files[".manifest"] = folder("x", `{}`)["x"]
	if _, err := rego.Test(t.Context(), files, rego.TestOptions{Params: map[string]any{"on": true}}); err == nil || !strings.Contains(err.Error(), "where the parameters go") {
		t.Errorf("params twice: %v", err)
	}
}
