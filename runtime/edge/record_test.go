package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// echo denies, and says what it was asked in every way that a policy has.
func echo(t testing.TB) *bundle.Package {
	t.Helper()
	source := `package p

import rego.v1

default answer := {"verdict": "deny"}

answer := {
	"verdict": "deny",
	"reasons": [{"code": sprintf("user_%v", [object.get(input, ["subject", "id"], "")]), "text": json.marshal(input)}],
	"obligations": [{"id": "o", "type": "notify", "properties": {"of": input, "to": upper(object.get(input, ["subject", "id"], ""))}}],
	"value": {"in": input, object.get(input, ["subject", "id"], ""): 1},
} if not input.vector
`
	built, err := rego.Compile(context.Background(), fstest.MapFS{"p.rego": {Data: []byte(source)}}, rego.Options{Entrypoints: []string{"p/answer"}})
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: "echo", ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "p/answer"},
		Module:   built.Wasm,
		Vectors:  []bundle.Vector{{Name: "denies", Point: policy.PointCustom, Request: []byte(`{"document":{"vector":1}}`), Expect: bundle.Expect{Verdict: policy.Deny}}},
	}
}

// logs is a package that logs its input, then allows, or traps on what is longer
// than so many bytes.
func logs(t testing.TB, longest int) *bundle.Package {
	t.Helper()
	out, err := wire.Marshal(map[string]any{"verdict": "allow"})
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: fmt.Sprintf("logs-%d", longest), ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy},
		Module:   tinyguest.Logs(out, longest),
		Vectors:  []bundle.Vector{{Name: "allows", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
}

// masking is a node with a point of all of these and masks, and the records that
// Live was shown.
func masking(t *testing.T, masks ...bundle.Mask) (*world, *node, *[]*audit.Record) {
	t.Helper()
	w := newWorld(t)
	r := w.release(1, w.publish(echo(t)))
	r.Points[0].Masks, r.Points[0].Durability = masks, policy.Synced
	r.Points[0].Packages = append(r.Points[0].Packages, w.publish(logs(t, 1<<20)), w.publish(logs(t, 200)))
	w.put(r)
	live := &[]*audit.Record{}
	n := w.start(func(c *edge.Config) { c.Live = func(r *audit.Record, _ audit.Ref) { *live = append(*live, r) } })
	n.waitEpoch(1)
	return w, n, live
}

const canary = "Canary-7f3a@example.org"

// A masked value is in no part of the record and in no file; the asker's answer
// has it. Everything else of the request is there.
func TestMaskedRecord(t *testing.T) {
	w, n, live := masking(t, bundle.Mask{Path: "/subject/id", Action: bundle.MaskHash}, bundle.Mask{Path: "/context/to/*", Action: bundle.MaskTokenise},
		bundle.Mask{Path: "/signals/*/text", Action: bundle.MaskDrop})
	body := `{"id":"r-` + canary + `","subject":{"type":"agent","id":"` + canary + `"},"action":{"name":"send"},"resource":{"type":"mail","id":"to ` + canary + `"},` +
		`"context":{"to":["Canary-2e2e","bob@example.org"],"agent":"a-1","amount":17,"session":"` + canary + `"},"signals":[{"detector":"d","score":0.5,"text":"found Canary-9b1c"}]}`
	a := n.askAt(policy.PointCustom, body)
	if text, _ := json.Marshal(a); strings.Count(string(text), canary) < 3 {
		t.Errorf("the answer is masked: %s", text)
	}
	records := n.records()
	r := records[len(records)-1]
	d := r.Decision
	for what, text := range map[string]string{"record": dump(t, r), "live": dump(t, (*live)[len(*live)-1])} {
		for _, secret := range []string{canary, "bob@example.org", "Canary-9b1c", "Canary-2e2e"} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("%s in the %s: %s", secret, what, text)
			}
		}
	}
	if d.Replay != audit.ReplayMasked || !strings.HasPrefix(d.Subject.ID, "hmac:") || d.Subject.Type != "agent" || d.Action != "send" ||
		d.Resource.ID != "to "+d.Subject.ID || d.RequestID != "r-"+d.Subject.ID || d.Said.Session != d.Subject.ID || d.Said.Agent.ID != "a-1" ||
		len(d.Said.Signals) != 1 || d.Value == nil || d.Logs == nil || len(d.Obligations) != 1 || !strings.Contains(string(d.Request.Bytes), `"amount":17`) {
		t.Errorf("%s", dump(t, r))
	}
	n.stop()
	grep(t, w.dir, canary, "bob@example.org", "Canary-9b1c", "Canary-2e2e")
	n = w.start(nil) // the same value has the same hash after a start
	n.waitEpoch(1)
	n.askAt(policy.PointCustom, body)
	again := n.records()
	if got := again[len(again)-1].Decision.Subject.ID; got != d.Subject.ID {
		t.Errorf("%s, then %s", d.Subject.ID, got)
	}
}

func dump(t *testing.T, r *audit.Record) string {
	t.Helper()
	var out strings.Builder
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, p := range r.Parts() {
		fmt.Fprintf(&out, "\n%s", p.Bytes)
	}
	return out.String()
}

// grep fails when a text is in a file below dir.
func grep(t *testing.T, dir string, texts ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s in %s", text, path)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Error(files, err)
	}
}

// Without masks nothing is masked, and a mask that meets nothing leaves a record
// exact.
func TestExactRecord(t *testing.T) {
	_, n, _ := masking(t, bundle.Mask{Path: "/context/nobody", Action: bundle.MaskDrop})
	a := n.askAt(policy.PointCustom, `{"subject":{"type":"u","id":"ada"},"action":{"name":"x"},"resource":{"type":"r","id":"1"}}`)
	records := n.records()
	r := records[len(records)-1]
	if r.Decision.Replay != audit.ReplayExact || r.Decision.Subject.ID != "ada" || r.Seq != a.Seq || len(r.Key) != audit.PartKeyBytes {
		t.Errorf("%s", dump(t, r))
	}
	if boot := records[0].Boot; len(boot.Secret) != 16 || boot.Schema != audit.SchemaVersion {
		t.Errorf("%+v", boot)
	}
	n.askAt(policy.PointCustom, `{"document":1}`)
	if next := n.records(); bytes.Equal(next[len(next)-1].Key, r.Key) {
		t.Error("two records have one key")
	}
}

// While no release is in force nobody knows the masks: nothing of a request is
// written down.
func TestNotReadyKeepsNothing(t *testing.T) {
	w := newWorld(t)
	n := w.start(nil)
	for _, point := range []string{policy.PointCustom, "no-point-of-ours"} {
		a := n.askAt(point, `{"id":"`+canary+`","subject":{"type":"u","id":"`+canary+`"},"action":{"name":"x"},"resource":{"type":"r","id":"1"}}`)
		if a.Verdict != policy.Deny || !a.Recorded {
			t.Errorf("%+v", a)
		}
	}
	records := n.records()
	r := records[len(records)-1]
	if r.Decision.Replay != audit.ReplayMasked || r.Decision.Request != nil || r.Decision.Reasons[0].Code != "not_ready" || r.Decision.Point != policy.PointCustom {
		t.Errorf("%s", dump(t, r))
	}
	n.stop()
	grep(t, w.dir, canary)
}

// said has every name that a request may state, and the Said that comes of it.
const said = `{"subject":{"type":"u","id":"ada","properties":{"auth_method":"oidc","acr":"urn:mace:incommon:iap:silver"}},"action":{"name":"x"},` +
	`"resource":{"type":"r","id":"1","properties":{"classification":"secret","region":"eu"}},"signals":[{"detector":"pii","version":"2","score":0.9,"text":"..."}],"context":{` +
	`"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","agent":{"id":"a1","version":"3","digest":"sha256:00"},"on_behalf_of":{"type":"user","id":"bob"},` +
	`"delegation_chain":[{"agent":"a0","scope":"read","depth":1},"no"],"client":{"ip":"192.0.2.1","app":"chat"},` +
	`"model":{"requested":"m","served":"m-1","provider":"p","version":"v","region":"us"},"tool":{"server":"s","name":"t","definition_digest":"sha256:11"},` +
	`"use_case_id":"uc-7","risk_class":"high","purpose":"support","data_subject_categories":["customer","",4],"session":"s-1","batch_decision_id":"b-1","idempotency_key":"i-1",` +
	`"use_started_at":"2026-01-02T03:04:05Z","approval":{"request_id":"q","required_n":2,"approvers":[{"id":"eve","method":"webauthn","at":"2026-01-02T03:04:05Z","decision":"yes","args_digest":"sha256:22"}],"expires_at":"2026-01-03T00:00:00Z","single_use":true}}}`

func TestSaid(t *testing.T) {
	_, n := started(t)
	last := func(body string) *audit.DecisionRecord {
		n.askAt(policy.PointCustom, body)
		n.Record(&audit.AdminRecord{Event: "mark"})
		records := n.records()
		return records[len(records)-2].Decision
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()
	d := last(said)
	want := &audit.Said{
		Agent: &audit.Agent{ID: "a1", Version: "3", Digest: "sha256:00"}, OnBehalfOf: &audit.Entity{Type: "user", ID: "bob"},
		Delegation: []audit.Hop{{Agent: "a0", Scope: "read", Depth: 1}}, Client: &audit.Client{IP: "192.0.2.1", App: "chat"},
		Model: &audit.Model{Requested: "m", Served: "m-1", Provider: "p", Version: "v", Region: "us"}, Tool: &audit.Tool{Server: "s", Name: "t", Definition: "sha256:11"},
		UseCase: "uc-7", RiskClass: "high", Purpose: "support", DataOf: []string{"customer"}, Classification: "secret", Region: "eu",
		Session: "s-1", Batch: "b-1", Idempotency: "i-1", UseStarted: at,
		Approval: &audit.Approval{Request: "q", Required: 2, Expires: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC).UnixNano(), SingleUse: true,
			Approvers: []audit.Approver{{ID: "eve", Method: "webauthn", At: at, Decision: "yes", Args: "sha256:22"}}},
		Signals: []audit.SignalRecord{{Detector: "pii", Version: "2", Score: 0.9}}, AuthMethod: "oidc", ACR: "urn:mace:incommon:iap:silver",
	}
	if !reflect.DeepEqual(d.Said, want) {
		t.Errorf("%+v\nwant %+v", d.Said, want)
	}
	if fmt.Sprintf("%x %x", d.Trace, d.Span) != "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7" {
		t.Errorf("%x %x", d.Trace, d.Span)
	}
	entities := `"subject":{"type":"u","id":"ada"},"action":{"name":"x"},"resource":{"type":"r","id":"1"}`
	if d := last(`{` + entities + `,"context":{"agent":"a1","model":"m","tool":"t","on_behalf_of":"bob","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}}`); d.Said == nil ||
		d.Said.Agent.ID != "a1" || d.Said.Model.Requested != "m" || d.Said.Tool.Name != "t" || d.Said.OnBehalfOf.ID != "bob" || len(d.Trace) != 16 {
		t.Errorf("%+v", d.Said)
	}
	// What is none of these is no error, and costs nothing.
	for _, context := range []string{
		``, `,"context":{"user":"x"}`,
		`,"context":{"agent":[1],"on_behalf_of":7,"delegation_chain":{"agent":"a"},"client":"c","model":[],"tool":null,"use_case_id":1,"data_subject_categories":"x","session":{},` +
			`"use_started_at":"yesterday","approval":[],"traceparent":"00-00000000000000000000000000000000-00f067aa0ba902b7-01","trace_id":4}`,
		`,"context":{"traceparent":"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`, `,"context":{"trace_id":"4BF9","span_id":"zz"}`,
	} {
		if d := last(`{` + entities + context + `}`); d.Said != nil || len(d.Trace) != 0 {
			t.Errorf("%s: %+v", context, d.Said)
		}
	}
	if d := last(`{` + entities + `,"context":{"purpose":"` + strings.Repeat("x", 1000) + `"}}`); len(d.Said.Purpose) > 300 {
		t.Errorf("a text of %d bytes", len(d.Said.Purpose))
	}
}

// A declaration that comes again is stored once, and every record has it.
func TestRepeatsAreStoredOnce(t *testing.T) {
	_, n := started(t)
	declaration := `{"type":"object","description":"` + strings.Repeat("pays money to whoever is owed some; ", 20) + `"}`
	body := func(i int) string {
		return fmt.Sprintf(`{"subject":{"type":"u","id":"ada"},"action":{"name":"x"},"resource":{"type":"tool","id":"pay%d","properties":{"declaration":%s}},"context":{"n":%d}}`, i, declaration, i)
	}
	size := func() uint64 {
		n.Record(&audit.AdminRecord{Event: "mark"})
		var sum uint64
		j := n.Journal()
		boots := j.Boots()
		b, err := j.ReadBatch(boots[len(boots)-1].ID, 1, 1000, 1<<20)
		n.w.must(err)
		for _, e := range b.Entries {
			sum += uint64(e.Bytes())
		}
		return sum
	}
	n.askAt(policy.PointCustom, body(0))
	n.askAt(policy.PointCustom, body(1))
	before := size()
	const more = 20
	for i := range more {
		n.askAt(policy.PointCustom, body(2+i))
	}
	if each := (size() - before) / more; each > 500 {
		t.Errorf("%d bytes a record; the declaration alone has %d", each, len(declaration))
	}
	have := 0
	for _, r := range n.records() {
		if r.Kind == audit.KindDecision && strings.Contains(string(r.Decision.Request.Bytes), declaration) {
			have++
		}
	}
	if have != more+2 {
		t.Errorf("%d of %d records have the declaration", have, more+2)
	}
}

func TestSecretFile(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "given")
	if _, err := edge.LoadSecret(file); err == nil {
		t.Error("a secret that is not there was read")
	}
	made, err := edge.LoadOrCreateSecret(file)
	w.must(err)
	info, err := os.Stat(file)
	w.must(err)
	again, err := edge.LoadSecret(file)
	if err != nil || again.ID() != made.ID() || info.Mode().Perm() != 0o600 || len(made.ID()) != 16 {
		t.Error(info.Mode(), again, err)
	}
	text, err := os.ReadFile(file)
	w.must(err)
	digits := strings.TrimSpace(string(text))
	if s := fmt.Sprintf("%v %+v %#v %+v", made, made, made, edge.Config{Secret: file}); strings.Contains(s, digits[:8]) {
		t.Errorf("printed: %s", s)
	}
	n := w.start(func(c *edge.Config) { c.Secret = file })
	if got := n.records()[0].Boot.Secret; got != made.ID() {
		t.Errorf("%s, not %s", got, made.ID())
	}
	n.stop()
	if _, err := os.Stat(edge.SecretFile(w.dir)); err == nil {
		t.Error("one more was made")
	}
	w.must(os.Chmod(file, 0o644))
	if _, err := edge.LoadSecret(file); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("readable by others: %v", err)
	}
	w.must(os.Chmod(file, 0o600))
	for _, bad := range []string{"", digits[:62], digits[:63] + "x", digits + "00"} {
		w.must(os.WriteFile(file, []byte(bad), 0o600))
		if _, err := edge.LoadSecret(file); err == nil || bad != "" && strings.Contains(err.Error(), bad[:8]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
