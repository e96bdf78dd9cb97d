package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	opaloader "github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

//go:embed testdata/rbac testdata/rego
var testdata embed.FS

// calls is how many decisions one round times.
const calls = 2000

// rbacInput is a user with the last binding but three: an allow that is not
// found at once.
const rbacInput = `{"user":"user97","action":"share","type":"type7"}`

// inProcess compares one decision, isolated and metered, with OPA's own Go
// evaluator on the same policy, data and input.
func (b *bench) inProcess(ctx context.Context) error {
	host, err := loader.NewHost(ctx)
	if err != nil {
		return err
	}
	defer host.Close(ctx)
	rbac, err := fs.Sub(testdata, "testdata/rbac")
	if err != nil {
		return err
	}
	ours, err := newRego(ctx, host, rbac, rbacInput)
	if err != nil {
		return err
	}
	theirs, err := newTopdown(ctx, rbac, rbacInput)
	if err != nil {
		return err
	}
	guest, err := newGuest(ctx, host)
	if err != nil {
		return err
	}
	competitors := []struct {
		name string
		f    func() error
		s    series
	}{
		{name: "Rego, OPA's Go evaluator, input parsed", f: theirs.parsed},
		{name: "Rego, Holdfast engine, input encoded", f: ours.encoded},
		{name: "Rego, OPA's Go evaluator, from request bytes", f: theirs.fromBytes},
		{name: "Rego, Holdfast, request bytes to decision", f: ours.fromBytes},
		{name: "Go guest (argument-guard), request bytes to decision", f: guest.fromBytes},
	}
	for range b.rounds {
		for i := range competitors {
			c := &competitors[i]
			s, err := timed(calls, c.f)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.s = append(c.s, s)
		}
	}
	b.line("\nOne decision in process (RBAC, 100 bindings)%14s %9s", "p50 us", "p99 us")
	for _, c := range competitors {
		b.line("  %-52s %7.1f %9.1f", c.name, us(c.s.median(0.5)), us(c.s.median(0.99)))
	}
	b.line("  Holdfast is %.1f times faster at p50 with the input ready, %.1f times from request bytes",
		us(competitors[0].s.median(0.5))/us(competitors[1].s.median(0.5)), us(competitors[2].s.median(0.5))/us(competitors[3].s.median(0.5)))
	return nil
}

// decider is a point of one module and a request for it.
type decider struct {
	point *decide.Point
	body  []byte
	req   *policy.Request
	input []byte
	want  policy.Verdict
}

func newRego(ctx context.Context, h *loader.Host, fsys fs.FS, input string) (*decider, error) {
	return newDecider(ctx, h, fsys, []byte(`{"document":`+input+`}`))
}

func newGuest(ctx context.Context, h *loader.Host) (*decider, error) {
	fsys, err := fs.Sub(modules.FS, "argument-guard")
	if err != nil {
		return nil, err
	}
	all, err := demo.Calls(1)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.Tampering == "" && c.Want == policy.Allow {
			return newDecider(ctx, h, fsys, c.Body)
		}
	}
	return nil, errors.New("no honest call")
}

func newDecider(ctx context.Context, h *loader.Host, fsys fs.FS, body []byte) (*decider, error) {
	built, err := compiler.BuildFS(ctx, fsys, compiler.Options{Loader: h, Prebuilt: true})
	if err != nil {
		return nil, err
	}
	m, n, err := h.Load(ctx, built.Package)
	if err != nil {
		return nil, err
	}
	c, err := codec.For(abi.Kind(built.Package.ABI))
	if err != nil {
		return nil, err
	}
	d := &decider{body: body, want: policy.Allow, point: &decide.Point{Modules: []decide.Module{{Module: m, Codec: c, Entrypoint: n}}}}
	if d.req, err = policy.ParseRequest(policy.PointCustom, body); err != nil {
		return nil, err
	}
	d.input, err = c.Encode(d.req)
	return d, err
}

func (d *decider) fromBytes() error {
	req, err := policy.ParseRequest(policy.PointCustom, d.body)
	if err != nil {
		return err
	}
	if out := d.point.Evaluate(req, 1); out.Decision.Verdict != d.want {
		return fmt.Errorf("%+v", out)
	}
	return nil
}

func (d *decider) encoded() error {
	m := &d.point.Modules[0]
	out, err := m.Module.Call(abi.Call{Input: d.input, Entrypoint: m.Entrypoint, Now: 1})
	if err != nil {
		return err
	}
	decision, err := m.Codec.Decode(out.Output)
	if err == nil && decision.Verdict != d.want {
		err = fmt.Errorf("%+v", decision)
	}
	return err
}

// topdown is OPA's Go evaluator, prepared as its documentation advises.
type topdown struct {
	query rego.PreparedEvalQuery
	body  []byte
	input any
}

func newTopdown(ctx context.Context, fsys fs.FS, input string) (*topdown, error) {
	loaded, err := opaloader.NewFileLoader().WithFS(fsys).All([]string{"rbac.rego", "data.json"})
	if err != nil {
		return nil, err
	}
	compiled, err := loaded.Compiler()
	if err != nil {
		return nil, err
	}
	t := &topdown{body: []byte(input)}
	if err := json.Unmarshal(t.body, &t.input); err != nil {
		return nil, err
	}
	t.query, err = rego.New(rego.Query("data.rbac.allow"), rego.Compiler(compiled), rego.Store(inmem.NewFromObject(loaded.Documents))).PrepareForEval(ctx)
	return t, err
}

func (t *topdown) parsed() error { return t.eval(t.input) }

func (t *topdown) fromBytes() error {
	var input any
	if err := json.Unmarshal(t.body, &input); err != nil {
		return err
	}
	return t.eval(input)
}

func (t *topdown) eval(input any) error {
	rs, err := t.query.Eval(context.Background(), rego.EvalInput(input))
	if err == nil && !rs.Allowed() {
		err = errors.New("OPA denies what it should allow")
	}
	return err
}
