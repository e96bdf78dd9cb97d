package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A decision is asked for and its result reported, by the commands that people
// have; a node that has no release decides and records too.
func TestResultCommand(t *testing.T) {
	fleet, err := assembly.StartFleet(context.Background(), assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	node := fleet.NodeInfos()[0].HTTP
	holdfast := func(code int, stdin string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), args, strings.NewReader(stdin), &out, &errs); got != code {
			t.Fatalf("%q: exit %d, want %d: %s", args, got, code, errs.String())
		}
		return out.String() + errs.String()
	}
	var a policy.Answer
	if err := json.Unmarshal([]byte(holdfast(0, `{"document":1}`, "decide", "--node", node, "--point", "custom", "-i", "-", "-o", "json")), &a); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"boot":%q,"seq":%d,"finish_reason":"stop","usage":{"input_tokens":7}}`, a.Boot, a.Seq)
	var r policy.Reported
	if err := json.Unmarshal([]byte(holdfast(0, body, "result", "--node", node, "-i", "-", "-o", "json")), &r); err != nil || !r.Recorded || r.Seq <= a.Seq || r.Boot != a.Boot {
		t.Errorf("%+v, %v", r, err)
	}
	if text := holdfast(0, body, "result", "--node", node, "-i", "-"); !strings.HasPrefix(text, "record edge-1/"+a.Boot) {
		t.Error(text)
	}
	if text := holdfast(1, fmt.Sprintf(`{"boot":%q,"seq":%d}`, a.Boot, a.Seq+1000), "result", "--node", node, "-i", "-"); !strings.Contains(text, "unknown_record") {
		t.Error(text)
	}
	for _, args := range [][]string{{"result", "--node", node}, {"result", "-i", "-"}} {
		holdfast(2, body, args...)
	}
	if text := holdfast(2, `{"seq":1}`, "result", "--node", node, "-i", "-"); !strings.Contains(text, `"boot" and "seq"`) {
		t.Error(text)
	}
}
