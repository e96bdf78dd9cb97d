package probe_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
)

// build compiles a folder of the files and the SDK, as an author would.
func build(t *testing.T, compile func(context.Context, string) (*toolchain.Module, error), sdk string, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	files[filepath.Base(sdk)] = string(read(t, sdk))
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := compile(t.Context(), dir)
	if missing, ok := errors.AsType[*toolchain.MissingError](err); ok {
		needs.Missing(t, missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m.Wasm
}

func loaded(t *testing.T, module []byte, params object) probe {
	t.Helper()
	m, err := newHost(t, engine.Config{}).Load(t.Context(), guestOf(t, "author's", module, params, nil))
	if err != nil {
		t.Fatal(err)
	}
	return probe{t, m.(*engine.Module)}
}

// says is the answer to a request without a context, as "verdict code: text".
func (p probe) says() string {
	p.Helper()
	out, _, trap := p.ask(nil)
	if trap != "" {
		return trap
	}
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		p.Fatal(err)
	}
	d, err := c.Decode(out)
	if err != nil || len(d.Reasons) != 1 {
		p.Fatalf("%+v, %v", d, err)
	}
	return d.Verdict.String() + " " + d.Reasons[0].Code + ": " + d.Reasons[0].Text
}

// block is the first block of code of that language in a README.
func block(t *testing.T, readme, language string) string {
	t.Helper()
	_, code, found := strings.Cut(string(read(t, readme)), "```"+language+"\n")
	code, _, ended := strings.Cut(code, "```\n")
	if !found || !ended {
		t.Fatalf("no %s in %s", language, readme)
	}
	return code
}

// TestReadmes: what the SDKs' READMEs begin with builds and does what it looks like.
func TestReadmes(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		code := block(t, "../"+l.name+"/README.md", cmp.Or(map[string]string{"assemblyscript": "ts"}[l.name], l.name))
		module := build(t, l.build, "../"+l.name+"/"+l.sdk(), map[string]string{"policy" + l.ending: code})
		if l.name == "rust" || l.name == "assemblyscript" {
			p := loaded(t, module, object{"currency": "EUR"})
			p.wants(object{"arguments": object{"amount": int64(101)}}, answer{verdict: "require_approval", reasons: [][2]string{{"large", "größer wants 101"}},
				obligations: []obligation{{"log-1", "notify", object{"who": "treasury"}}}})
			p.wants(object{"arguments": object{"amount": int64(100)}}, answer{verdict: "allow", reasons: [][2]string{{"small", "100 is fine"}}, value: object{"currency": "EUR"}})
			return
		}
		for subject, want := range map[string]string{"größer": "deny blocked: größer is blocked", "nobody": "allow fine: nobody objects"} {
			if got := loaded(t, module, object{"blocked": []any{int64(1), subject}}).says(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// Two files in C and one in C++ share the header, its state and constructors.
var several = map[string]string{
	"policy.c": `#include "holdfast.h"
void greet(hf_line *line, hf_text name);
int32_t made(void);
bool policy_configure(hf_value params, hf_value data) { return !hf_get(params, HF("x")) && !data; }
void policy_decide(hf_value request, hf_decision *d) {
  hf_line line = {0};
  greet(&line, hf_text_of(hf_path(request, HF("subject.id"))));
  hf_add_int(&line, made());
  hf_answer(d, HF_ALLOW, HF("greeted"), line.text);
}
`,
	"greet.c": `#include "holdfast.h"
void greet(hf_line *line, hf_text name) {
  hf_add(line, HF("hello "));
  hf_add(line, name);
  hf_add(line, HF(", number "));
}
`,
	"made.cpp": `#include "holdfast.h"
struct maker { int32_t n; maker() : n(7) {} } volatile one;
extern "C" int32_t made() { return "a"_hf == HF("a") && "a"_hf != "b"_hf ? one.n : 0; }
`,
}

func TestSeveralFiles(t *testing.T) {
	t.Run("clang", func(t *testing.T) {
		t.Setenv("ZIG", "no-zig")
		testSeveral(t)
	})
	t.Run("zig cc", func(t *testing.T) {
		needs.OnlyZig(t)
		testSeveral(t)
	})
}

func testSeveral(t *testing.T) {
	if got := loaded(t, build(t, toolchain.C, "../c/holdfast.h", maps.Clone(several)), nil).says(); got != "allow greeted: hello größer, number 7" {
		t.Error(got)
	}
}

// keepers keep their parameters as often as it goes, and say how often that was.
var keepers = map[string]string{
	"c": `#include "holdfast.h"
static int64_t times;
bool policy_configure(hf_value params, hf_value data) {
  while (times < 100 && hf_keep(params)) times++;
  return !data && hf_len(params) == 1 && hf_len(hf_get(params, HF("x"))) == 10000;
}
void policy_decide(hf_value request, hf_decision *d) {
  hf_line line = {0};
  hf_add_int(&line, times);
  hf_answer(d, HF_DENY, HF(""), hf_keep(request) ? HF("kept") : line.text);
}
`,
	"zig": `const holdfast = @import("holdfast.zig");
comptime {
    _ = holdfast;
}
var times: i64 = 0;
pub fn configure(params: holdfast.Value, _: holdfast.Value) bool {
    while (times < 100 and params.keep().exists()) times += 1;
    return params.len() == 1 and params.get("x").len() == 10000;
}
pub fn decide(request: holdfast.Value, d: *holdfast.Decision) void {
    d.answer(.deny, "", if (request.keep().exists()) "kept" else holdfast.text(.{times}));
}
`,
}

// TestKeepIsBounded: what does not fit is said, and overwrites nothing.
func TestKeepIsBounded(t *testing.T) {
	native(t, func(t *testing.T, l language) {
		module := build(t, l.build, "../"+l.name+"/"+l.sdk(), map[string]string{"policy" + l.ending: keepers[l.name]})
		if got := loaded(t, module, object{"x": strings.Repeat("x", 10_000)}).says(); got != "deny : 1" {
			t.Error(got)
		}
	})
}
