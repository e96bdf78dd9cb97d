package assembly_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/serve/opa"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// exchange is one request and what OPA's own server answers; testdata/opa/record
// writes it down.
type exchange struct {
	Method, URL, Body string
	Headers           map[string]string
	Set               bool // the result is a set, whose order a module does not keep
	Status            int
	Type, Answer      string
}

func (x *exchange) String() string { return x.Method + " " + x.URL + " " + x.Body }

func readTranscript(t *testing.T) (all []exchange) {
	t.Helper()
	raw, err := os.ReadFile("testdata/opa/transcript.json")
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// askOPA asks the node's front door and returns the record's name.
func (o *one) askOPA(x *exchange) (got exchange, record string) {
	o.t.Helper()
	r, err := http.NewRequest(x.Method, o.edge.URL()+x.URL, strings.NewReader(x.Body))
	if err != nil {
		o.t.Fatal(err)
	}
	for k, v := range x.Headers {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	got = *x
	got.Status, got.Type, got.Answer = resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
	return got, resp.Header.Get(opa.RecordHeader)
}

// TestOPAsFrontDoor asks a node what OPA's own server was asked and wants the
// same bytes, and a record behind every answer that is no 4xx.
func TestOPAsFrontDoor(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(buildFolder(t, "testdata/opa/policy"), func(p *bundle.Point) { p.Name = "shop" })
	var names []string
	for _, x := range readTranscript(t) {
		got, record := o.askOPA(&x)
		if got.Status != x.Status || got.Type != x.Type || withoutAccidents(&got) != withoutAccidents(&x) {
			t.Errorf("%s:\n got %d %s %s\nwant %d %s %s", &x, got.Status, got.Type, got.Answer, x.Status, x.Type, x.Answer)
		}
		if decided := x.Status == http.StatusOK || strings.Contains(x.Answer, "evaluating query"); decided != (record != "") {
			t.Errorf("%s: record %q", &x, record)
		} else if decided {
			names = append(names, record)
		}
	}
	o.wantRecords(names)
}

var (
	goType = regexp.MustCompile(`Go value of type [a-z.]+`)
	words  = regexp.MustCompile(`(?s)"(message|file)": "(rule |var |\.\./policy/|shop)[^"]*"`)
	stack  = regexp.MustCompile(`(?s),\n +"stack_trace": \[.*?\n      \]`)
)

// withoutAccidents is an answer without what cannot be the same: names of Go types,
// OPA's own words and stack for a conflict, the order of a set.
func withoutAccidents(x *exchange) string {
	text := stack.ReplaceAllString(words.ReplaceAllString(goType.ReplaceAllString(x.Answer, ""), "$1"), "")
	if inner, ok := strings.CutPrefix(strings.TrimSpace(text), `{"result":[`); x.Set && ok {
		members := strings.Split(strings.TrimSuffix(inner, "]}"), ",")
		slices.Sort(members)
		text = strings.Join(members, ",")
	}
	return text
}

// wantRecords stops the node and wants decisions of those names, in order.
func (o *one) wantRecords(names []string) {
	o.t.Helper()
	o.stop()
	dir := o.t.TempDir() + "/export"
	if err := assembly.Export(o.home.Layout(), dir, "", ""); err != nil {
		o.t.Fatal(err)
	}
	var recorded []string
	_, err := audit.VerifyEach(os.DirFS(dir), o.home.Keys(), func(node, boot string, r *audit.Record, leaf tlog.Hash) {
		if r.Kind == audit.KindDecision {
			recorded = append(recorded, fmt.Sprintf("%s/%s/%d; leaf=%s", node, boot, r.Seq, hex.EncodeToString(leaf[:])))
			if r.Decision.Activation != 0 && r.Decision.Resource.Type != "data" { // before a release nothing of a request is kept
				o.t.Errorf("%d: resource %v", r.Seq, r.Decision.Resource)
			}
		}
	})
	if err != nil {
		o.t.Fatal(err)
	}
	if len(names) == 0 || strings.Join(recorded, "\n") != strings.Join(names, "\n") {
		o.t.Errorf("answered\n%s\nrecorded\n%s", strings.Join(names, "\n"), strings.Join(recorded, "\n"))
	}
}

// While nothing is in force every document is undefined, and recorded.
func TestOPAsFrontDoorBeforeARelease(t *testing.T) {
	o := newOne(t)
	o.start()
	got, record := o.askOPA(&exchange{Method: "POST", URL: "/v1/data/shop/allow", Body: `{"input": 1}`})
	if got.Status != 200 || got.Answer != "{}\n" {
		t.Errorf("%+v", got)
	}
	o.wantRecords([]string{record})
}

// A document that permits what the point denies is undefined: nobody here can
// say that it performs an obligation.
func TestOPAsFrontDoorFailsClosed(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, "package p\n\nallow := {\"verdict\": \"transform\", \"obligations\": [{\"type\": \"redact\"}]}\n"), nil)
	got, record := o.askOPA(&exchange{Method: "GET", URL: "/v1/data/p/allow"})
	if got.Status != 200 || got.Answer != "{}\n" {
		t.Errorf("%+v", got)
	}
	o.wantRecords([]string{record})
}

// A document whose record cannot be written is not given out, whatever it says.
func TestOPAsFrontDoorGivesNothingUnrecorded(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	o.publish(regoPackage(t, "package p\n\nallow := [\"a\", \"b\"]\n"), nil)
	if got, _ := o.askOPA(&exchange{Method: "GET", URL: "/v1/data/p/allow"}); got.Status != 200 || !strings.Contains(got.Answer, "result") {
		t.Fatalf("before: %+v", got)
	}
	fs.write.Store(true)
	got, record := o.askOPA(&exchange{Method: "GET", URL: "/v1/data/p/allow"})
	if got.Status != 500 || strings.Contains(got.Answer, "result") || record != "none" {
		t.Errorf("%+v, record %s", got, record)
	}
	fs.write.Store(false)
}

// buildFolder compiles a folder on disk to a package.
func buildFolder(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := compiler.Build(t.Context(), dir, compiler.Options{Loader: newLoader(t)})
	if err != nil {
		t.Fatal(err)
	}
	return b.File
}
