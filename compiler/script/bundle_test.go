package script_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/script"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// folder writes files, by their path, under a new folder and returns its path.
func folder(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

const allowing = "export function decide() { return { verdict: \"allow\" } }\n"

// TestBadSources: what is wrong with the sources is said with its place.
func TestBadSources(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":             {map[string]string{"other.ts": allowing}, "no policy.ts and no policy.js in the folder"},
		"syntax":              {map[string]string{"policy.ts": "const a = 1\n  const = 2\n"}, `policy.ts:2:9: Expected identifier but found "="`},
		"several":             {map[string]string{"policy.ts": "import './a'\nimport './b'\n" + allowing}, "policy.ts:2:8: \"./b\": no such file in the policy's folder"},
		"syntax of an import": {map[string]string{"policy.ts": "import './lib/a'\n" + allowing, "lib/a.ts": "\n\nlet x: = 3"}, `lib/a.ts:3:8: Unexpected "="`},
		"no such name":        {map[string]string{"policy.ts": "import { x } from './a'\nexport const decide = x\n", "a.ts": "export const y = 1"}, `policy.ts:1:10: No matching export in "policy:a.ts" for import "x"`},
		"no decide":           {map[string]string{"policy.ts": "export function decides() {}"}, "policy.ts: exports no function decide"},
		"outside":             {map[string]string{"policy.ts": "import '../../etc/passwd'\n" + allowing}, `policy.ts:1:8: "../../etc/passwd" lies outside of the policy's folder`},
		"outside and back":    {map[string]string{"policy.ts": "import './lib/a'\n" + allowing, "lib/a.ts": "import '../../x'"}, `lib/a.ts:1:8: "../../x" lies outside`},
		"absolute":            {map[string]string{"policy.ts": "import '/etc/passwd'\n" + allowing}, `"/etc/passwd": a policy imports only files of its own folder`},
		"file URL":            {map[string]string{"policy.ts": "import 'file:///etc/passwd'\n" + allowing}, "a policy imports only files of its own folder"},
		"data URL":            {map[string]string{"policy.ts": "import 'data:text/javascript,1'\n" + allowing}, "a policy imports only files of its own folder"},
		"of the network":      {map[string]string{"policy.ts": "import 'https://example.com/x.js'\n" + allowing}, "a policy imports only files of its own folder"},
		"of Node":             {map[string]string{"policy.ts": "import fs from 'node:fs'\nexport const decide = fs"}, `policy.ts:1:16: "node:fs": a policy imports only files of its own folder`},
		"of Node, bare":       {map[string]string{"policy.ts": "import fs from 'fs'\nexport const decide = fs"}, "nothing of Node"},
		"a package":           {map[string]string{"policy.ts": "import x from 'left-pad'\nexport const decide = x", "node_modules/left-pad/index.js": "export default 1"}, "there are no packages"},
		"required":            {map[string]string{"policy.js": "const fs = require('fs')\n" + allowing}, "nothing of Node"},
		"dynamic":             {map[string]string{"policy.ts": "export async function decide() { return import('./a') }", "a.ts": "export const a = 1"}, "policy.ts:1:48: import(\"./a\"): a policy has all its files at once"},
		"dynamic, not async":  {map[string]string{"policy.ts": "import('./a')\n" + allowing, "a.ts": "export const a = 1"}, "import it at the top"},
		"await at the top":    {map[string]string{"policy.ts": "await 1\n" + allowing}, "Top-level await is not available"},
		"another kind":        {map[string]string{"policy.ts": "import './a.css'\n" + allowing, "a.css": "a{}"}, `"a.css": a policy imports .ts, .js and .json files`},
		"JSX":                 {map[string]string{"policy.ts": "import './a.tsx'\n" + allowing, "a.tsx": "<a/>"}, "a policy imports .ts, .js and .json files"},
		"bad JSON":            {map[string]string{"policy.ts": "import x from './a.json'\nexport const decide = () => x", "a.json": "{"}, "a.json:1:2: "},
		"a folder":            {map[string]string{"policy.ts": "import './lib'\n" + allowing, "lib/a.ts": ""}, `"./lib": no such file`},
		"5 MB":                {map[string]string{"policy.ts": allowing + "//" + strings.Repeat("x", 5<<20)}, "at most 262144 bytes"},
		"many files":          {map[string]string{"policy.ts": "import a from './a'\nimport b from './b'\nexport const decide = () => a + b", "a.ts": "export default '" + strings.Repeat("x", 150<<10) + "'", "b.ts": "export default '" + strings.Repeat("y", 150<<10) + "'"}, "with all that it imports"},
	} {
		_, err := script.Compile(t.Context(), os.DirFS(folder(t, c.files)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if err != nil && len(err.Error()) > 2_000 {
			t.Errorf("%s: %d bytes of error", name, len(err.Error()))
		}
	}
}

// TestLinks: no symbolic link is followed, wherever it stands and leads.
func TestLinks(t *testing.T) {
	secret := filepath.Join(folder(t, map[string]string{"secret.json": `"secret"`}), "secret.json")
	for name, link := range map[string][2]string{
		"to a file outside":   {secret, "a.json"},
		"to a folder outside": {filepath.Dir(secret), "lib"},
		"to a file inside":    {"b.json", "a.json"},
	} {
		imported := "./a.json"
		if link[1] == "lib" {
			imported = "./lib/secret.json"
		}
		dir := folder(t, map[string]string{"policy.ts": "import a from '" + imported + "'\nexport const decide = () => a", "b.json": "1"})
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
		if _, err := script.Compile(t.Context(), os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := folder(t, map[string]string{"x.ts": allowing})
	if err := os.Symlink("x.ts", filepath.Join(dir, "policy.ts")); err != nil {
		t.Fatal(err)
	}
	if _, err := script.Compile(t.Context(), os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
		t.Errorf("policy.ts itself: %v", err)
	}
}

// TestGoodSources: what a policy may be made of.
func TestGoodSources(t *testing.T) {
	const want = "\xa2\x65value\x65right\x67verdict\x65allow"
	for name, files := range map[string]map[string]string{
		"cycle":       {"policy.ts": "import { a } from './a'\nexport const b = 'right'\nexport const decide = () => ({ verdict: 'allow', value: a() })", "a.ts": "import { b } from './policy'\nexport const a = () => b"},
		"JSON":        {"policy.ts": "import a from './a.json'\nexport const decide = () => ({ verdict: 'allow', value: a.b[0] })", "a.json": `{"b": ["right"]}`},
		"JavaScript":  {"policy.js": "const a = require('./lib/a')\nmodule.exports = { decide: () => ({ verdict: 'allow', value: a.b }) }", "lib/a.js": "exports.b = 'right'"},
		".js for .ts": {"policy.ts": "import { b } from './lib/a.js'\nexport const decide = () => ({ verdict: 'allow', value: b })", "lib/a.ts": "export const b: string = 'right'"},
		"both":        {"policy.ts": "export const decide = () => ({ verdict: 'allow', value: 'right' })", "policy.js": "nonsense("},
		"types":       {"policy.ts": "interface A { a: string }\nenum E { X = 'right' }\nconst x = { a: E.X } satisfies A\nexport const decide = (r: unknown) => ({ verdict: 'allow', value: (x as A)!.a })\nconst wrong: number = 'text'"},
		"NUL":         {"policy.js": "const x = 'a\x00b'\n/* \x00 */ export const decide = () => ({ verdict: 'allow', value: x.length === 3 && x.charCodeAt(1) === 0 ? 'right' : 'wrong' })"},
		"BOM":         {"policy.ts": "\ufeffexport const decide = () => ({ verdict: 'allow', value: 'right' })"},
		"not UTF-8":   {"policy.js": "const x = '\xff'\nexport const decide = () => ({ verdict: 'allow', value: x === '\\ufffd' ? 'right' : x })"},
		"tsconfig":    {"policy.ts": "export const decide = () => ({ verdict: 'allow', value: 'right' })", "tsconfig.json": "nonsense", "package.json": "nonsense"},
		"new syntax":  {"policy.ts": "class A { static x: string; static { A.x = 'right' } #y = 1; accessor = 1 }\nexport const decide = () => ({ verdict: 'allow', value: [A.x].at(-1) ?? '' })"},
		"bare":        {"policy.ts": "import { isInt } from './sdk'\nexport const decide = () => ({ verdict: 'allow', value: isInt(1) && !isInt('1') ? 'right' : 'wrong' })", "sdk.ts": string(readFile(t, filepath.Join(typescript, "holdfast.ts")))},
	} {
		m, err := script.Compile(t.Context(), os.DirFS(folder(t, files)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		loaded, err := loadOn(t, interpreter(t), m.Wasm, nil, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r, err := loaded.Call(abi.Call{Input: number(0)}); err != nil || string(r.Output) != want {
			t.Errorf("%s: got %q, %v %s", name, r.Output, err, logged(r))
		}
	}
}

// TestReproducible: the same files in two folders give the same bytes, and these
// hold neither folder's name.
func TestReproducible(t *testing.T) {
	files := map[string]string{"holdfast.ts": string(readFile(t, filepath.Join(typescript, "holdfast.ts"))), "policy.ts": string(readFile(t, filepath.Join(typescript, "examples/spend-cap.ts")))}
	var first []byte
	for range 3 {
		dir := folder(t, files)
		m, err := script.Compile(t.Context(), os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m.Wasm
		}
		if !bytes.Equal(first, m.Wasm) || bytes.Contains(m.Wasm, []byte(filepath.Base(dir))) || bytes.Contains(m.Wasm, []byte(filepath.Dir(dir))) {
			t.Fatal("the module depends on its folder")
		}
	}
}

// TestLargestScript: what is within the bounds starts within the fuel for it.
func TestLargestScript(t *testing.T) {
	for name, source := range map[string]string{
		"one text":  allowing + "export const x = '" + strings.Repeat("x", 1<<18-500) + "'\n",
		"functions": allowing + strings.Repeat("globalThis.f = function(a, b) { if (a > b) return a + b * 2; return a }\n", 2_800),
		"objects":   allowing + "globalThis.t = [\n" + strings.Repeat("  { name: 'x', list: [1, 2, 3], on: true },\n", 4_200) + "]\n",
	} {
		m, err := compile(t, map[string]string{"policy.js": source})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		loaded, err := load(t, m.Wasm, nil, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %d bytes, %+v", name, len(source), loaded.Stats())
		if r, err := loaded.Call(abi.Call{Input: number(0)}); err != nil {
			t.Errorf("%s: %v %s", name, err, logged(r))
		}
	}
}

// TestEngine: the engine module is the one that engine/build was seen to make, and
// imports no more than the contract offers: of WASI what libc's printf would need
// to complain.
func TestEngine(t *testing.T) {
	const want = "20faa3e1141fc0740328a42d9c013e443aefbe1a3d6c5a494a21e1c5de03e1fc"
	raw := readFile(t, "engine/engine.wasm")
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != want {
		t.Errorf("engine.wasm is %x; engine/build makes %s", sum, want)
	}
	report, err := wasm.Scan(raw, wasm.LanguageRuntime)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(report.Imports, " "); got != "holdfast_v1.now holdfast_v1.log holdfast_v1.match wasi_snapshot_preview1.fd_close wasi_snapshot_preview1.fd_seek wasi_snapshot_preview1.fd_write" {
		t.Errorf("imports %s", got)
	}
	if report.MemoryMin != 15 || report.MemoryMax != 511 {
		t.Errorf("memory from %d to %d pages", report.MemoryMin, report.MemoryMax)
	}
	if _, err := load(t, raw, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "the module has no script in it") {
		t.Errorf("the engine alone: %v", err)
	}
}

// TestReadme: the first example of the SDK's page is built and asked.
func TestReadme(t *testing.T) {
	_, rest, _ := strings.Cut(string(readFile(t, filepath.Join(typescript, "README.md"))), "```ts\n")
	source, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("no example")
	}
	m, err := compile(t, map[string]string{"policy.ts": source})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loadOn(t, interpreter(t), m.Wasm, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "Error: blocked is not a list\n    at configure (policy.ts:6)") {
		t.Errorf("without its parameter: %v", err)
	}
	loaded, err := loadOn(t, interpreter(t), m.Wasm, map[string]any{"blocked": []any{"eve"}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"eve": "eve is blocked", "ada": "nobody objects"} {
		if r, err := loaded.Call(abi.Call{Input: []byte("\xa1\x67subject\xa1\x62id\x63" + id)}); err != nil || !bytes.Contains(r.Output, []byte(want)) {
			t.Errorf("%s: %q, %v", id, r.Output, err)
		}
	}
}
