package assembly_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// echoAll says what it was asked in every way that a policy has.
const echoAll = `package p

import rego.v1

default allow := {"verdict": "deny"}

allow := {
	"verdict": "deny",
	"reasons": [{"code": sprintf("of_%v", [input]), "text": json.marshal(input)}, {"code": "upper", "text": upper(json.marshal(input))},
		{"code": "cut", "text": substring(json.marshal(input), 0, 300)}, {"code": "url", "text": urlquery.encode(json.marshal(input))}],
	"obligations": [{"id": json.marshal(input), "type": "notify", "properties": {"of": input}}],
	"value": {"in": input, json.marshal(input): [input]},
} if is_object(input)
`

// canaries are secrets, one for each place of a request, each with a core of
// letters and digits that nothing else has.
type canaries struct {
	t     *testing.T
	cores map[string]string // by what they are for
}

// core makes the core of a secret.
func (c *canaries) core(what string) string {
	core := "zq" + strings.ToLower(rand.Text()[:14])
	if _, twice := c.cores[what]; twice {
		c.t.Fatalf("%s twice", what)
	}
	c.cores[what] = core
	return core
}

// digits makes a number that nothing else has.
func (c *canaries) digits(what string) string {
	var b [6]byte
	rand.Read(b[:])
	n := "71"
	for _, x := range b {
		n += fmt.Sprintf("%02d", x%90+10)
	}
	c.cores[what] = n
	return n
}

// found lists what of the canaries is in b, in small letters or large.
func (c *canaries) found(b []byte) (what []string) {
	small := bytes.ToLower(b)
	for name, core := range c.cores {
		if bytes.Contains(small, []byte(core)) {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	return what
}

// control is what is not masked: it must be found wherever secrets are looked for.
const control = "control"

// requests are bodies that have a secret in every maskable place, and the masks
// for them.
func (c *canaries) requests() (bodies []string, masks []bundle.Mask) {
	actions := []string{bundle.MaskHash, bundle.MaskDrop, bundle.MaskTokenise}
	mask := func(path string) string {
		masks = append(masks, bundle.Mask{Path: path, Action: actions[len(masks)%3]})
		return c.core(path)
	}
	context := map[string]any{
		"plain":   c.core(control),
		"deep":    map[string]any{"er": map[string]any{"est": "<\"" + mask("/context/deep/er/est") + "\\é\n>"}},
		"lists":   []any{[]any{"a", mask("/context/lists/0/1")}, mask("/context/lists/1")},
		"headers": map[string]any{"authorization": "Bearer " + mask("/context/headers/*"), "cookie": c.core("second header")},
		"people":  map[string]any{mask("/context/people") + "@example.org": true},
		"amount":  json.Number(c.digits("a number")), "ratio": json.Number(c.digits("a fraction") + ".25"),
		"prompt":  strings.Repeat(mask("/context/prompt")+" and ", 40),
		"nested":  `{"iban":"` + mask("/context/nested") + `","x":1}`,
		"session": mask("/context/session"), "agent": map[string]any{"id": mask("/context/agent/id")}, "purpose": mask("/context/purpose"),
		"approval": map[string]any{"approvers": []any{map[string]any{"id": mask("/context/approval/approvers/*/id")}}},
	}
	masks = append(masks, bundle.Mask{Path: "/context/amount", Action: bundle.MaskHash}, bundle.Mask{Path: "/context/ratio", Action: bundle.MaskTokenise})
	whole := map[string]any{
		"id":       mask("/id"),
		"subject":  map[string]any{"type": mask("/subject/type"), "id": mask("/subject/id"), "properties": map[string]any{"mail": mask("/subject/properties/mail")}},
		"action":   map[string]any{"name": mask("/action/name"), "properties": map[string]any{"to": mask("/action/properties/to")}},
		"resource": map[string]any{"type": "r", "id": mask("/resource/id"), "properties": map[string]any{"owner": mask("/resource/properties/owner"), "region": mask("/resource/properties/region")}},
		"context":  context, "supported_obligations": []any{"notify", mask("/supported_obligations/1")},
		"signals": []any{map[string]any{"detector": mask("/signals/*/detector"), "text": mask("/signals/*/text"), "score": 0.5}},
	}
	again := map[string]any{ // the same values in places that no mask names
		"subject": whole["subject"], "action": whole["action"], "resource": whole["resource"],
		"context": map[string]any{"er": fmt.Sprint(context["deep"]), "copy": context["session"], "prompt": context["prompt"], "session": context["session"], "deep": context["deep"]},
	}
	document := map[string]any{"document": map[string]any{"user": mask("/document/user"), "x": c.cores[control]}}
	large := map[string]any{ // beyond what stays in an entry, and beyond the policies' fuel
		"subject": whole["subject"], "action": whole["action"], "resource": whole["resource"],
		"context": map[string]any{"prompt": strings.Repeat(context["prompt"].(string), 10), "deep": context["prompt"]},
	}
	for _, r := range []any{whole, again, document, large} {
		b, err := json.Marshal(r)
		if err != nil {
			c.t.Fatal(err)
		}
		bodies = append(bodies, string(b))
	}
	return bodies, masks
}

// refused are bodies that are no requests, with a secret where they are wrong.
func (c *canaries) refused() (bodies []string) {
	for what, body := range map[string]string{
		"cut":      `{"document":{"user":"%s"`,
		"number":   `{"document":1%s}`,
		"member":   `{"%s":1,"document":1}`,
		"twice":    `{"document":{"%[1]s":1,"%[1]s":2}}`,
		"input":    `{"input":{"%[1]s":1,"%[1]s":2}}`,
		"type":     `{"subject":"%s","document":1}`,
		"point":    `{"point":"%s","document":1}`,
		"no JSON":  `%s`,
		"the node": `{"document":1,"context":{"holdfast":"%s"}}`,
	} {
		bodies = append(bodies, fmt.Sprintf(body, c.core("refused: "+what)))
	}
	return bodies
}

// packages are the policies of the canary's point.
func canaryPackages(t *testing.T) (refs []bundle.PackageRef, files map[wire.Digest][]byte) {
	t.Helper()
	allow, err := wire.Marshal(map[string]any{"verdict": "allow"})
	if err != nil {
		t.Fatal(err)
	}
	files = map[wire.Digest][]byte{}
	for name, fsys := range map[string]fstest.MapFS{
		"echo":  {"p.rego": {Data: []byte(echoAll)}, "holdfast.yaml": {Data: []byte("name: echo\nlanguage: rego\nentrypoint: p/allow\n")}},
		"logs":  {"logs.wasm": {Data: tinyguest.Logs(allow, 1<<20)}, "holdfast.yaml": {Data: []byte("name: logs\nlanguage: wasm\n")}},
		"traps": {"traps.wasm": {Data: tinyguest.Logs(allow, 200)}, "holdfast.yaml": {Data: []byte("name: traps\nlanguage: wasm\n")}},
	} {
		b, err := compiler.BuildFS(context.Background(), fsys, compiler.Options{Loader: newLoader(t)})
		if err != nil {
			t.Fatal(name, err)
		}
		refs = append(refs, bundle.PackageRef{Name: name, Digest: b.Digest, Size: b.Size, Fuel: 20_000_000})
		files[b.Digest] = b.File
	}
	return refs, files
}

// A lockedBuffer is written by many.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// captured has standard output and error go to a file until the test ends.
func captured(t *testing.T) (file string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = f, f
	t.Cleanup(func() { os.Stdout, os.Stderr = out, errs; f.Close() })
	return f.Name()
}

// TestCanary asks a whole fleet with a secret in every place that a mask can name,
// and echoes them in every way that policies have. No secret is on any disk, also
// where it is compressed, in a log, a live message, a metric or on the terminal.
// What is not masked is found in all of these that hold requests, so that a search
// which finds nothing is seen.
func TestCanary(t *testing.T) {
	output := captured(t)
	logs := &lockedBuffer{}
	c := &canaries{t: t, cores: map[string]string{}}
	bodies, masks := c.requests()
	dir := t.TempDir()
	f, err := assembly.StartFleet(t.Context(), assembly.FleetConfig{
		Dir: dir, Tenant: "demo", Regions: 2, Edges: 2, Log: slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(f.Close)
	defer stop()
	ask := func(node, point, body string) policy.Answer {
		t.Helper()
		cl, err := client.New(client.Config{Node: node})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		a, err := cl.Decide(t.Context(), point, []byte(body))
		if _, refused := errors.AsType[*client.StatusError](err); err != nil && !refused {
			t.Fatal(err)
		}
		return a
	}
	nodes := f.URLs()
	for _, body := range append(bodies, fmt.Sprintf(`{"id":"%s","document":1}`, c.core("before a release"))) {
		ask(nodes[0], "custom", body)
	}
	ask(nodes[0], c.core("a point before a release"), `{"document":1}`)

	refs, files := canaryPackages(t)
	published, err := f.Publish(t.Context(), []bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: refs, Masks: masks}}, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.WaitInForce(t.Context(), nodes, published.Epoch); err != nil {
		t.Fatal(err)
	}
	live, watching := c.watch(f)
	for _, node := range nodes {
		for _, body := range bodies {
			a := ask(node, "custom", body)
			if said, _ := json.Marshal(a); !a.Recorded || len(body) < 8000 && len(c.found(said)) < 2 {
				t.Errorf("the asker is not told what the policies said: %.300s", said)
			}
			c.report(node, a)
			var r struct{ Document json.RawMessage }
			if json.Unmarshal([]byte(body), &r) == nil && r.Document != nil {
				c.post(node+"/v1/data/p/allow", `{"input":`+string(r.Document)+`}`)
				c.post(node+"/v1/data/no/such/path", `{"input":`+string(r.Document)+`}`)
			}
		}
		for i, body := range c.refusedOnce() {
			ask(node, "custom", body)
			c.post(node+"/v1/data/p/allow", body)
			c.post(node+"/v1/results", body)
			if i == 0 {
				ask(node, c.cores["refused: cut"], `{"document":1}`)
				c.post(node+"/v1/"+c.cores["refused: cut"], body)
			}
		}
	}
	watching()
	texts := map[string][]byte{"live messages": live.bytes()}
	for _, node := range nodes {
		texts["metrics of "+node] = c.get(node + "/metrics")
		texts["status of "+node] = c.get(node + "/v1/status")
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := f.WaitCosigned(ctx); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	texts["logs"] = logs.bytes()
	texts["output"], err = os.ReadFile(output)
	if err != nil || len(texts["logs"]) == 0 {
		t.Errorf("no logs, or no output: %v", err)
	}
	sees := map[string]bool{"live messages": false}
	for where, text := range texts {
		c.look(where, text, sees)
	}
	c.lookAtFiles(dir, sees)
	for _, kind := range []string{"live messages", ".seg", ".batch", ".blk"} {
		if !sees[kind] {
			t.Errorf("%s: what is not masked was not found: nothing would be", kind)
		}
	}
}

// refusedOnce makes the bodies at the first call.
func (c *canaries) refusedOnce() []string {
	if _, made := c.cores["refused: cut"]; made {
		return []string{`{"` + c.cores["refused: member"] + `":1}`}
	}
	return c.refused()
}

// watch collects live decisions until one of each node was seen.
func (c *canaries) watch(f *assembly.Fleet) (live *lockedBuffer, wait func()) {
	c.t.Helper()
	cfg, err := assembly.AdminOf(f.Layout())
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), timeout)
	live = &lockedBuffer{}
	done := make(chan error, 1)
	seen := make(chan struct{}, 1)
	go func() {
		done <- assembly.Tail(ctx, cfg, assembly.LiveFilter{}, func(d assembly.LiveDecision) error {
			select {
			case seen <- struct{}{}:
			default:
			}
			return json.NewEncoder(live).Encode(d)
		})
	}()
	// Interest travels: ask until the first live decision is seen.
	for watched := false; !watched; {
		c.post(f.URLs()[0]+"/v1/decide/custom", `{"document":{"x":"`+c.cores[control]+`"}}`)
		select {
		case <-seen:
			watched = true
		case <-ctx.Done():
			c.t.Fatal("no live decision is seen")
		default:
		}
	}
	return live, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			c.t.Error(err)
		}
	}
}

func (c *canaries) report(node string, a policy.Answer) {
	c.t.Helper()
	secret := c.cores["/context/prompt"]
	cl, err := client.New(client.Config{Node: node})
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	_, err = cl.Report(c.t.Context(), &policy.Result{Boot: a.Boot, Seq: a.Seq, Error: "no " + secret, FinishReason: secret,
		Obligations: []policy.ObligationResult{{ID: secret, Status: "failed", Error: secret}}})
	if err != nil {
		c.t.Error(err)
	}
}

func (c *canaries) post(url, body string) {
	c.t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func (c *canaries) get(url string) []byte {
	c.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Error(resp.Status, err)
	}
	return b
}

// look fails the test for every secret in b, and notes where the control is seen.
func (c *canaries) look(where string, b []byte, sees map[string]bool) {
	for _, what := range c.found(b) {
		if what == control {
			sees[where] = true
			continue
		}
		at := max(0, bytes.Index(bytes.ToLower(b), []byte(c.cores[what]))-60)
		c.t.Errorf("%s: the secret of %s is there: %q", where, what, b[at:min(len(b), at+120)])
	}
}

// lookAtFiles looks into every file below dir, and into every Zstandard frame in
// them.
func (c *canaries) lookAtFiles(dir string, sees map[string]bool) {
	c.t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		c.look(path, b, seen)
		for _, frame := range frames(b) {
			content, err := wire.Decompress(frame, 64<<20)
			if err != nil {
				continue // other bytes that look like a frame
			}
			c.look(path, content, seen)
		}
		if seen[path] {
			sees[filepath.Ext(path)] = true
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
}

// frames are what may be Zstandard frames (RFC 8878) anywhere in b.
func frames(b []byte) (out [][]byte) {
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for at := 0; ; at++ {
		n := bytes.Index(b[at:], magic)
		if n < 0 {
			return out
		}
		at += n
		if end := frameEnd(b[at:]); end > 0 {
			out = append(out, b[at:at+end])
		}
	}
}

// frameEnd follows a frame's blocks; 0 for what is no frame.
func frameEnd(b []byte) int {
	if len(b) < 6 {
		return 0
	}
	flags := b[4]
	single := flags>>5&1 == 1
	at := 5 + []int{0, 1, 2, 4}[flags&3] + []int{0, 2, 4, 8}[flags>>6]
	if !single {
		at++
	} else if flags>>6 == 0 {
		at++
	}
	for last := false; !last; {
		if at+3 > len(b) {
			return 0
		}
		header := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16
		last = header&1 != 0
		size := int(header >> 3)
		if header>>1&3 == 1 {
			size = 1
		}
		at += 3 + size
	}
	if flags>>2&1 == 1 {
		at += 4
	}
	if at > len(b) {
		return 0
	}
	return at
}
