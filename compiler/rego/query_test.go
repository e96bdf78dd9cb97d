package rego_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

func TestDataPath(t *testing.T) {
	for query, want := range map[string]string{
		"data.rbac.allow": "rbac/allow", "data.a[0].b": "a/0/b", `data.a["b/c"]`: "a/b%2Fc",
		"data": "", "input.x": "", "data[x]": "", "data.a[{}]": "", "1 + 1": "", "rbac/allow": "",
	} {
		if got, err := rego.DataPath(query); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", query, got, err)
		}
	}
}
