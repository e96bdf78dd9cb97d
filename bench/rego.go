package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing/fstest"
	"time"

	opaloader "github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/testdata/toolcalls"
)

// A regoCase is one policy with the documents that it is asked about in turn.
type regoCase struct {
	name   string
	aim    float64
	files  fs.FS
	inputs []string
}

// inRego compares whole decisions, isolated and metered, from request bytes, with
// OPA's Go evaluator on the same policies, data and inputs.
func (b *bench) inRego(ctx context.Context) error {
	cases, err := regoCases()
	if err != nil {
		return err
	}
	host, err := loader.NewHost(ctx)
	if err != nil {
		return err
	}
	defer host.Close(ctx)
	b.line("\nRego, request bytes to decision          OPA p50   p99 us | Holdfast p50   p99 us | times (aim)")
	for _, c := range cases {
		if err := b.regoCase(ctx, host, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) regoCase(ctx context.Context, host *loader.Host, c regoCase) error {
	theirs, err := newOPA(ctx, c)
	if err != nil {
		return err
	}
	ours, took, err := newOurs(ctx, host, c)
	if err != nil {
		return err
	}
	for n := range c.inputs {
		want, err := theirs.allows(n)
		if err != nil {
			return err
		}
		if got, err := ours.allows(n); err != nil || got != want {
			return fmt.Errorf("input %d: Holdfast says %v, OPA %v (%v)", n, got, want, err)
		}
	}
	var opa, holdfast series
	for range b.rounds {
		for _, one := range []struct {
			into *series
			ask  func(int) (bool, error)
		}{{&opa, theirs.allows}, {&holdfast, ours.allows}} {
			n := 0
			s, err := timed(calls, func() error {
				_, err := one.ask(n % len(c.inputs))
				n++
				return err
			})
			if err != nil {
				return err
			}
			*one.into = append(*one.into, s)
		}
	}
	b.line("  %-36s %9.1f %8.1f | %12.1f %8.1f | %5.1f (%g)   build %d ms", c.name, us(opa.median(0.5)), us(opa.median(0.99)),
		us(holdfast.median(0.5)), us(holdfast.median(0.99)), us(opa.median(0.5))/us(holdfast.median(0.5)), c.aim, took.Milliseconds())
	return nil
}

// opaEvaluator is OPA's Go evaluator, prepared as its documentation advises.
type opaEvaluator struct {
	query  rego.PreparedEvalQuery
	inputs []string
}

func newOPA(ctx context.Context, c regoCase) (*opaEvaluator, error) {
	loaded, err := opaloader.NewFileLoader().WithFS(c.files).All([]string{"."})
	if err != nil {
		return nil, err
	}
	compiled, err := loaded.Compiler()
	if err != nil {
		return nil, err
	}
	delete(loaded.Documents, "name") // of holdfast.yaml
	_, entry, _ := strings.Cut(string(mustRead(c.files, "holdfast.yaml")), "entrypoint: ")
	entry, _, _ = strings.Cut(entry, "\n")
	o := &opaEvaluator{inputs: c.inputs}
	o.query, err = rego.New(rego.Query("data."+strings.ReplaceAll(entry, "/", ".")), rego.Compiler(compiled),
		rego.Store(inmem.NewFromObject(loaded.Documents))).PrepareForEval(ctx)
	return o, err
}

func mustRead(fsys fs.FS, name string) []byte {
	raw, _ := fs.ReadFile(fsys, name)
	return raw
}

func (o *opaEvaluator) allows(n int) (bool, error) {
	var input any
	if err := util.UnmarshalJSON([]byte(o.inputs[n]), &input); err != nil {
		return false, err
	}
	rs, err := o.query.Eval(context.Background(), rego.EvalInput(input))
	return rs.Allowed(), err
}

// ourEvaluator is a point of one module.
type ourEvaluator struct {
	point  *decider
	bodies [][]byte
}

func newOurs(ctx context.Context, host *loader.Host, c regoCase) (*ourEvaluator, time.Duration, error) {
	began := time.Now()
	if _, err := compiler.BuildFS(ctx, c.files, compiler.Options{Loader: host}); err != nil {
		return nil, 0, err
	}
	took := time.Since(began)
	o := &ourEvaluator{}
	for _, input := range c.inputs {
		o.bodies = append(o.bodies, []byte(`{"document":`+input+`}`))
	}
	var err error
	o.point, err = newDecider(ctx, host, c.files, o.bodies[0])
	return o, took, err
}

func (o *ourEvaluator) allows(n int) (bool, error) {
	req, err := policy.ParseRequest(policy.PointCustom, o.bodies[n])
	if err != nil {
		return false, err
	}
	out := o.point.point.Evaluate(req, 1)
	return out.Decision.Verdict == policy.Allow, nil
}

func regoCases() ([]regoCase, error) {
	list, err := fs.Sub(testdata, "testdata/rbac")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(toolcalls.JSONL()), "\n")
	return []regoCase{
		{"RBAC, list of 100 bindings", 8, list, []string{rbacInput}},
		{"RBAC, keyed by user", 6, withData("keyed", keyedData()), []string{rbacInput}},
		{"tool arguments, 956 real calls", 5, withData("toolargs", nil), lines},
		{"an account among 5 MB of data", 9, withData("bigdata", accounts(36_000)), []string{`{"account":"account-17711","model":"model-3","tokens":100}`}},
		{"the same among 5 KB", 9, withData("bigdata", accounts(36)), []string{`{"account":"account-17","model":"model-3","tokens":100}`}},
		{"1,000 rules of which one matches", 1, thousandRules(), []string{`{"user":"user500","action":"action0"}`}},
	}, nil
}

// withData is a policy of testdata/rego with a data document.
func withData(name string, data any) fs.FS {
	files := fstest.MapFS{}
	for _, file := range []string{"policy.rego", "holdfast.yaml"} {
		files[file] = &fstest.MapFile{Data: mustRead(testdata, "testdata/rego/"+name+"/"+file)}
	}
	if data != nil {
		raw, _ := json.Marshal(data)
		files["data.json"] = &fstest.MapFile{Data: raw}
	}
	return files
}

func keyedData() any {
	bindings, roles := map[string][]string{}, map[string][]any{}
	for n := range 100 {
		role := fmt.Sprintf("role%d", n%10)
		bindings[fmt.Sprintf("user%d", n)] = []string{role}
		roles[role] = nil
		for _, action := range []string{"read", "write", "list", "delete", "share"} {
			roles[role] = append(roles[role], map[string]string{"action": action, "type": fmt.Sprintf("type%d", n%10)})
		}
	}
	return map[string]any{"bindings": bindings, "roles": roles}
}

func accounts(count int) any {
	all := map[string]any{}
	for n := range count {
		all[fmt.Sprintf("account-%d", n)] = map[string]any{
			"models": []string{"model-1", "model-2", "model-3"}, "tokens": 1000 + n, "region": "eu-central-1", "owner": fmt.Sprintf("team-%d", n%100), "tier": "standard",
		}
	}
	return map[string]any{"accounts": all}
}

// thousandRules is a policy of as many rules that each test for a user.
func thousandRules() fs.FS {
	var text bytes.Buffer
	text.WriteString("package thousand\n\n# METADATA\n# entrypoint: true\ndefault allow := false\n")
	for n := range 1000 {
		fmt.Fprintf(&text, "\nallow if {\n\tinput.user == \"user%d\"\n\tinput.action == \"action%d\"\n}\n", n, n%5)
	}
	return fstest.MapFS{"policy.rego": {Data: text.Bytes()}, "holdfast.yaml": {Data: []byte("name: thousand\nlanguage: rego\nentrypoint: thousand/allow\n")}}
}
