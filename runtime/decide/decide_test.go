package decide_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// answers is a module that is a function; the engine has its own tests with
// real ones.
type answers func(abi.Call) (abi.Result, error)

func (a answers) Call(c abi.Call) (abi.Result, error) { return a(c) }

func says(json string) answers {
	return func(c abi.Call) (abi.Result, error) {
		return abi.Result{Output: append(c.Output, `[{"result":`+json+`}]`...), Fuel: 10}, nil
	}
}

func traps(code abi.TrapCode) answers {
	return func(abi.Call) (abi.Result, error) { return abi.Result{}, &abi.Trap{Code: code, Fuel: 7} }
}

func point(t *testing.T, modules ...answers) *decide.Point {
	t.Helper()
	c, err := codec.For(abi.OPA1)
	if err != nil {
		t.Fatal(err)
	}
	p := &decide.Point{Name: "custom"}
	for _, m := range modules {
		p.Modules = append(p.Modules, decide.Module{Name: "m", Module: m, Codec: c})
	}
	return p
}

func request(t *testing.T) *policy.Request {
	t.Helper()
	r, err := policy.ParseRequest("custom", []byte(`{"document":1}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOutcomesLast has outputs written where earlier ones were: outcomes must
// hold nothing of them.
func TestOutcomesLast(t *testing.T) {
	turn := byte('a')
	p := point(t, func(c abi.Call) (abi.Result, error) {
		text := bytes.Repeat([]byte{turn}, 20)
		return abi.Result{Output: fmt.Appendf(c.Output, `[{"result":{"verdict":"deny","reasons":[{"code":"%s"}],"value":{"%[1]s":"%[1]s"}}}]`, text)}, nil
	})
	p.Modules[0].Entrypoints = map[string]int32{"x": 0}
	first := p.Evaluate(request(t), 1)
	_, document := p.Data(request(t), []string{"x"}, 1)
	before := fmt.Sprintf("%+v %s", first, document.JSON)
	for turn = 'b'; turn < 'e'; turn++ {
		p.Evaluate(request(t), 1)
		p.Data(request(t), []string{"x"}, 1)
	}
	if after := fmt.Sprintf("%+v %s", first, document.JSON); after != before {
		t.Errorf("was %s, is %s", before, after)
	}
}

// Every pair of verdicts, in both orders, gives the stronger one.
func TestStrongestVerdictWins(t *testing.T) {
	word := func(v policy.Verdict) string {
		if v == policy.Transform {
			return `{"verdict":"transform","obligations":[{"type":"redact"}]}`
		}
		return `{"verdict":"` + v.String() + `"}`
	}
	for _, a := range policy.Verdicts() {
		for _, b := range policy.Verdicts() {
			out := point(t, says(word(a)), says(word(b))).Evaluate(request(t), 1)
			if want := min(a, b); out.Decision.Verdict != want {
				t.Errorf("%v with %v: %v, want %v", a, b, out.Decision.Verdict, want)
			}
		}
	}
}

func TestNoShortCircuit(t *testing.T) {
	out := point(t, says(`false`), says(`true`), traps(abi.TrapUnreachable)).Evaluate(request(t), 1)
	if len(out.Runs) != 3 || out.Runs[1].Fuel != 10 || out.Runs[2].Trap != abi.TrapUnreachable {
		t.Errorf("%+v", out.Runs)
	}
}

func TestFailModes(t *testing.T) {
	for _, c := range []struct {
		code            abi.TrapCode
		onError, onFuel policy.FailMode
		want            policy.Verdict
		reason          string
	}{
		{abi.TrapUnreachable, policy.FailDeny, policy.FailAllowFlagged, policy.Deny, decide.CodePolicyError},
		{abi.TrapUnreachable, policy.FailAllowFlagged, policy.FailDeny, policy.Allow, decide.CodePolicyError},
		{abi.TrapUnreachable, policy.FailEscalate, policy.FailDeny, policy.RequireApproval, decide.CodePolicyError},
		{abi.TrapFuel, policy.FailAllowFlagged, policy.FailDeny, policy.Deny, decide.CodeFuel},
		{abi.TrapFuel, policy.FailDeny, policy.FailEscalate, policy.RequireApproval, decide.CodeFuel},
	} {
		p := point(t, traps(c.code), says(`true`))
		p.OnError, p.OnFuel = c.onError, c.onFuel
		out := p.Evaluate(request(t), 1)
		if out.Decision.Verdict != c.want || out.Decision.Reasons[0].Code != c.reason || out.Runs[0].Trap != c.code || out.Runs[0].Fuel != 7 {
			t.Errorf("%+v: %+v", c, out)
		}
	}
}

// A module that allows because it failed must not lift another one's denial.
func TestFailOpenDoesNotLiftADenial(t *testing.T) {
	p := point(t, traps(abi.TrapHost), says(`false`))
	p.OnError = policy.FailAllowFlagged
	if out := p.Evaluate(request(t), 1); out.Decision.Verdict != policy.Deny {
		t.Errorf("%+v", out.Decision)
	}
}

func TestNonsenseIsATrap(t *testing.T) {
	out := point(t, says(`{"verdict":"sure"}`)).Evaluate(request(t), 1)
	if out.Decision.Verdict != policy.Deny || out.Runs[0].Trap != abi.TrapOutput {
		t.Errorf("%+v", out)
	}
}

func TestNothingDecidesIsADenial(t *testing.T) {
	if out := point(t).Evaluate(request(t), 1); out.Decision.Verdict != policy.Deny {
		t.Errorf("%+v", out)
	}
	if out := decide.NotReady(); out.Decision.Verdict != policy.Deny || out.Decision.Reasons[0].Code != decide.CodeNotReady {
		t.Errorf("%+v", out)
	}
}

func TestDifferingValuesDeny(t *testing.T) {
	same := point(t, says(`{"verdict":"allow","value":{"a":[1]}}`), says(`{"verdict":"allow","value":{"a":[1]}}`)).Evaluate(request(t), 1)
	if same.Decision.Verdict != policy.Allow || same.Decision.Value == nil {
		t.Errorf("equal values: %+v", same.Decision)
	}
	differ := point(t, says(`{"verdict":"allow","value":1}`), says(`{"verdict":"allow","value":2}`)).Evaluate(request(t), 1)
	if differ.Decision.Verdict != policy.Deny || differ.Decision.Reasons[0].Code != decide.CodeValuesDiffer {
		t.Errorf("different values: %+v", differ.Decision)
	}
}

func TestReasonsOfTheWinningSide(t *testing.T) {
	allow := says(`{"verdict":"allow","reasons":[{"code":"granted"}],"obligations":[{"type":"label"}]}`)
	deny := says(`{"verdict":"deny","reasons":[{"code":"limit"}]}`)
	d := point(t, allow, deny).Evaluate(request(t), 1).Decision
	if want := []policy.Reason{{Code: "limit"}}; !reflect.DeepEqual(d.Reasons, want) || len(d.Obligations) != 0 {
		t.Errorf("%+v", d)
	}
	d = point(t, allow, says(`{"verdict":"transform","obligations":[{"type":"redact"}]}`)).Evaluate(request(t), 1).Decision
	if len(d.Obligations) != 2 || d.Verdict != policy.Transform {
		t.Errorf("%+v", d)
	}
}
