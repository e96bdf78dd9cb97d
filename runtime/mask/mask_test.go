package mask_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

var keys = mask.NewKeys([]byte("a secret of a tenant, 32 bytes.."))

// rules reads "drop /a/b", ...
func rules(lines ...string) *mask.Rules {
	var masks []bundle.Mask
	for _, l := range lines {
		action, path, _ := strings.Cut(l, " ")
		masks = append(masks, bundle.Mask{Path: path, Action: action})
	}
	return mask.Compile(masks)
}

// placeholders are what stands for values, for comparisons.
var placeholders = regexp.MustCompile(`hmac:[0-9a-f]{32}|tok_[0-9a-f]{32}|\[dropped\]|\[masked\]`)

func TestRequest(t *testing.T) {
	for _, c := range []struct{ doc, rules, want string }{
		{`{"a":1}`, "drop /b", `{"a":1}`},
		{` { "a" : 1 , "b" : 2 } `, "drop /b", `{"a":1}`},
		{`{"b":2,"a":1}`, "drop /b", `{"a":1}`},
		{`{"b":2}`, "drop /b", `{}`},
		{`{"a":{"b":["x",{"c":"yy"}]}}`, "drop /a/b/1/c", `{"a":{"b":["x",{}]}}`},
		{`{"a":["x","long",3]}`, "drop /a/1", `{"a":["x",null,3]}`},
		{`{"a":[{"s":"one1","t":1},{"s":"two2"}]}`, "drop /a/*/s", `{"a":[{"t":1},{}]}`},
		{`{"a":{"x":"one1","y":{"z":1}}}`, "drop /a/*", `{"a":{}}`},
		{`{"a/b":{"m~n":"v123"}}`, "drop /a~1b/m~0n", `{"a/b":{}}`},
		{`{"\u0061":"v123"}`, "drop /a", `{}`},
		{`{"a":"v123"}`, "hash /a", `{"a":"H"}`},
		{`{"a":{"b":[1,2]}}`, "tokenise /a", `{"a":"T"}`},
		{`{"a":"v123","b":"v123","c":"is v123!","d":["V123"],"v123":1}`, "hash /a", `{"a":"H","b":"H","c":"is H!","d":["H"],"v123":1}`},
		{`{"a":"v123","b":{"v123":"admin","x":1}}`, "hash /a", `{"a":"H","b":{"H":"admin","x":1}}`},
		{`{"a":["v123","v12\u0033!"],"b":{"v123":1,"V123":[{"\u0076123":2}],"[dropped]+":3}}`, "drop /a", `{"b":{"D":1,"D++":[{"D":2}],"D+":3}}`},
		{`{"a":["type","v123","4711"],"b":{"type":1,"v123":2,"c":{"type":3,"4711":4}}}`, "drop /a|drop /b/v123/x", `{"b":{"type":1,"v123":2,"c":{"D":3,"D+":4}}}`},
		{`{"a":4711,"b":4711,"c":"sum 4711.0, 47110","d":4.711e3,"e":471}`, "hash /a", `{"a":"H","b":"H","c":"sum H, 47110","d":"H","e":471}`},
		{`{"a":"4711","b":4711}`, "hash /a", `{"a":"H","b":"H"}`},
		{`{"a":"DE","b":"in DE","c":"DELTA de","d":"DE"}`, "drop /a", `{"b":"in D","c":"DELTA de","d":"D"}`},
		{`{"a":5,"b":5,"c":"5"}`, "drop /a", `{"b":5,"c":"5"}`},
		{`{"point":"custom","a":"custom","b":"custom"}`, "drop /a", `{"point":"custom","b":"D"}`},
		{`{"a":"v123","b":1}`, "hash /a|drop /a", `{"b":1}`},
		{`{"a":{"b":"v123","c":"w"}}`, "drop /a|hash /a/b", `{}`},
		{`{"a":"say \"v\"","b":"{\"x\":\"say \\\"v\\\"\"}"}`, "drop /a", `{"b":"{\"x\":\"D\"}"}`},
		{`{"a":true,"b":true}`, "drop /a", `{"b":true}`},
		{`{"a":{"ada@x.org":1},"b":"to ada@x.org"}`, "drop /a", `{"b":"to D"}`},
	} {
		red := rules(strings.Split(c.rules, "|")...).Apply(keys, []byte(c.doc))
		got := placeholders.ReplaceAllStringFunc(string(red.Request()), func(s string) string {
			return map[byte]string{'h': "H", 't': "T", '[': "D"}[s[0]]
		})
		if got != c.want {
			t.Errorf("%s\n%s: %s, want %s", c.doc, c.rules, red.Request(), c.want)
		}
		if red.Masked() != (c.want != c.doc) && !strings.Contains(c.doc, " ") {
			t.Errorf("%s: masked %t", c.doc, red.Masked())
		}
	}
}

// The same value has the same hash at every path; tokens differ by path and are
// not the hashes.
func TestPlaceholders(t *testing.T) {
	var got map[string]string
	red := rules("hash /a", "hash /b", "tokenise /c", "tokenise /d", "tokenise /e").Apply(keys, []byte(`{"a":"ada","b":"ada","c":"bob","d":"bob","e":"bob"}`))
	if err := json.Unmarshal(red.Request(), &got); err != nil {
		t.Fatal(err)
	}
	if got["a"] != got["b"] || got["c"] == got["d"] || strings.TrimPrefix(got["a"], mask.HashPrefix) == strings.TrimPrefix(got["c"], mask.TokenPrefix) {
		t.Error(got)
	}
	again := rules("hash /x", "tokenise /c").Apply(keys, []byte(`{"x":"\u0061da","c":"bob"}`))
	if !strings.Contains(string(again.Request()), got["a"]) || !strings.Contains(string(again.Request()), got["c"]) {
		t.Errorf("%v, then %s", got, again.Request())
	}
	other := rules("hash /a").Apply(mask.NewKeys([]byte("another secret")), []byte(`{"a":"ada"}`))
	if strings.Contains(string(other.Request()), got["a"]) {
		t.Error("the hash does not depend on the secret")
	}
	for _, s := range []string{fmt.Sprint(keys), fmt.Sprintf("%+v %#v", keys, keys), slog.AnyValue(keys).String()} {
		if strings.ContainsAny(s, "[{") {
			t.Errorf("keys printed: %s", s)
		}
	}
}

// Other languages escape in other ways than Go.
func TestEscapesOfOthers(t *testing.T) {
	red := rules("drop /a").Apply(keys, []byte(`{"a":["Jo Ä@x.org","a/b/c","Jo😀hn","O'Neil (x)!"]}`))
	for _, s := range []string{
		"Jo%20%C3%84%40x.org", `a\/b\/c`, `{"x":"a\\\/b\\\/c"}`, `Jo\ud83d\ude00hn`, `Jo\uD83D\uDE00hn`, "O'Neil%20(x)!", "O%27Neil%20%28x%29%21",
	} {
		if got := red.Text(s); strings.Trim(strings.ReplaceAll(got, mask.Dropped, ""), `{"x:}`) != "" {
			t.Errorf("%q: %q", s, got)
		}
	}
}

// What policies do with a value before they say it.
func TestText(t *testing.T) {
	long := "the quick brown fox jumps over the lazy dog while nobody looks"
	red := rules("drop /a").Apply(keys, []byte(`{"a":["Ada@Example.org","`+long+`","a/b c&d","line\nfeed","München Ost",4711.5,-90,1.23456789e8]}`))
	for in, want := range map[string]string{
		"":                                   "",
		"user ada@example.org":               "user D",
		"ADA@EXAMPLE.ORG,ada@example.org":    "D,D",
		"cut off: ada@exam":                  "cut off: D",
		"ada@exam in the middle":             "ada@exam in the middle",
		"said: " + long[:30] + "...":         "said: D...",
		"..." + long[30:] + ".":              "...D.",
		"..." + long[3:19] + ".":             "...D.",
		"..." + long[3:18] + ".":             "..." + long[3:18] + ".",
		"u=a%2Fb+c%26d":                      "u=D",
		"u=a%2Fb%20c&d":                      "u=D",
		`{"x":"line\nfeed"}`:                 `{"x":"D"}`,
		`{"x":"a/b c\u0026d"}`:               `{"x":"D"}`,
		"in MÜNCHEN OST":                     "in D",
		"%7B%22x%22%3A%22line%5Cnfeed%22%7d": "%7B%22x%22%3A%22D%22%7d",
		"sum%3A123456789%7d":                 "sum%3AD%7d",
		"in München Ost":                     "in D",
		"4711.5":                             "D",
		"limit 4711.50 or -90, not 90x or 9": "limit D or -D, not 90x or 9",
	} {
		want = strings.ReplaceAll(want, "D", mask.Dropped)
		if got := red.Text(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestValue(t *testing.T) {
	red := rules("drop /a").Apply(keys, []byte(`{"a":["secret-1",4711]}`))
	in := map[string]any{"n": int64(4711), "f": 4711.0, "g": 4711.5, "s": []any{"a secret-1", nil, true}, "secret-1": "x", "b": []byte("secret-1")}
	got := fmt.Sprint(red.Value(in))
	if want := "map[[dropped]:x b:[masked] f:[dropped] g:4711.5 n:[dropped] s:[a [dropped] <nil> true]]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if fmt.Sprint(in["n"]) != "4711" {
		t.Error("the value itself was changed: it is the answer")
	}
	var none *mask.Redaction
	if none.Text("x") != "x" || none.Value(1) != 1 || none.Masked() {
		t.Error("nil masks")
	}
}

// What cannot be masked is not recorded at all.
func TestBlind(t *testing.T) {
	for _, doc := range []string{``, `x`, `{"a":`, `{"a":"\x"}`, `{"a" "b"}`, `{"a":` + strings.Repeat(`[`, 60) + strings.Repeat(`]`, 60) + `}`} {
		red := rules("drop /a").Apply(keys, []byte(doc))
		if red.Request() != nil || !red.Masked() || red.Text("anything") != mask.Masked || red.Value(int64(1)) != mask.Masked || red.Members(map[string]any{"a": 1}) != nil {
			t.Errorf("%q: %s", doc, red.Request())
		}
	}
}

// A request that is made to be slow is not masked slowly, but recorded without
// its parts.
func TestWorkIsBounded(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(`{"a":[`)
	for i := range 5000 {
		fmt.Fprintf(&doc, `"aaaa%d",`, i)
	}
	doc.WriteString(`"z"],"b":"` + strings.Repeat("aaaab", 30<<10) + `"}`)
	began := time.Now()
	red := rules("drop /a").Apply(keys, []byte(doc.String()))
	if red.Request() != nil || red.Text("x") != mask.Masked {
		t.Errorf("%d bytes", len(red.Request()))
	}
	if took := time.Since(began); took > 2*time.Second { // some 20 ms, on a machine of its own
		t.Error(took)
	}
}

// FuzzSecret puts a secret into a request's maskable places, and beside other
// text into everything else: it is nowhere in what is recorded.
func FuzzSecret(f *testing.F) {
	f.Add("sk-live-4711", "key ", uint8(0))
	f.Add("a\"b\\c<é", "\n", uint8(1))
	f.Add(strings.Repeat("xy z", 20), "xy zxy", uint8(2))
	f.Add("aaaa", "aaa", uint8(3))
	f.Fuzz(func(t *testing.T, secret, beside string, how uint8) {
		if len(secret) < 4 || !utf8.ValidString(secret) || !utf8.ValidString(beside) {
			return
		}
		doc, err := json.Marshal(map[string]any{
			"subject": map[string]any{"type": "t", "id": secret}, "resource": map[string]any{"type": "r", "id": beside + secret + beside},
			"context": map[string]any{"a": []any{secret, map[string]any{"b": beside + secret}}, "c": beside, "d": map[string]any{secret: 1, beside + secret: 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
		action := []string{"drop", "hash", "tokenise"}[how%3]
		red := rules(action+" /subject/id", action+" /context/a").Apply(keys, doc)
		if red.Request() == nil {
			if len(doc) < 10<<10 {
				t.Fatalf("%s: not masked at all", doc)
			}
			return
		}
		var out any
		if err := json.Unmarshal(red.Request(), &out); err != nil {
			t.Fatalf("%s: %v", red.Request(), err)
		}
		clean(t, out, secret)
		inner, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		clean(t, red.Value([]any{beside + secret, strings.ToUpper(secret) + beside, map[string]any{secret + beside: secret}}), secret)
		clean(t, red.Text(beside+string(inner)+beside), string(inner[1:len(inner)-1]))
		cut := beside + secret
		if got := red.Text(cut[:len(beside)+4]); len(placeholders.ReplaceAllString(got, "")) > len(beside) {
			t.Fatalf("%q: a secret that was cut off left %q", cut[:len(beside)+4], got)
		}
	})
}

// clean fails when the secret is anywhere in v.
func clean(t *testing.T, v any, secret string) {
	switch v := v.(type) {
	case string:
		for _, piece := range placeholders.Split(v, -1) {
			if strings.Contains(lower(piece), lower(secret)) {
				t.Fatalf("secret %q in %q", secret, v)
			}
		}
	case []any:
		for _, e := range v {
			clean(t, e, secret)
		}
	case map[string]any:
		for name, e := range v {
			clean(t, name, secret)
			clean(t, e, secret)
		}
	}
}

// lower folds as masks do.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if low := unicode.ToLower(r); utf8.RuneLen(low) == utf8.RuneLen(r) {
			return low
		}
		return r
	}, s)
}

// FuzzApply has anything masked by anything: it never panics, and JSON stays JSON.
func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"point":"p","a":[1,{"b":"c"}]}`), "/a/*/b", uint8(0))
	f.Add([]byte(`{"a":"\u00e9\\"}`), "/a", uint8(1))
	f.Fuzz(func(t *testing.T, doc []byte, path string, how uint8) {
		red := rules([]string{"drop", "hash", "tokenise"}[how%3]+" "+path).Apply(keys, doc)
		_, err := policy.ParseValue(doc)
		if err == nil && red.Request() != nil && !json.Valid(red.Request()) {
			t.Fatalf("%s: %s", doc, red.Request())
		}
		red.Text(string(doc))
		red.Value(map[string]any{string(doc): string(doc)})
	})
}

// BenchmarkApply masks a request of 1 KB and one reason.
func BenchmarkApply(b *testing.B) {
	doc := []byte(`{"point":"tool.pre_call","id":"r-1","subject":{"type":"agent","id":"agent-7","properties":{"role":"finance"}},"action":{"name":"tools/call"},` +
		`"resource":{"type":"tool","id":"pay","properties":{"declaration":{"type":"object","properties":{` + strings.Repeat(`"amount":{"type":"integer","description":"how much"},`, 10) +
		`"iban":{"type":"string"}}}}},"context":{"arguments":{"iban":"DE89370400440532013000","amount":4711},"user":"please pay what I owe to Bob"}}`)
	for _, c := range []struct {
		name  string
		rules *mask.Rules
	}{
		{"one", rules("hash /subject/id")},
		{"three", rules("hash /subject/id", "drop /context/user", "tokenise /context/arguments/iban")},
		{"not there", rules("hash /context/nobody")},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				red := c.rules.Apply(keys, doc)
				red.Text("agent-7 may not pay 4711 to DE89370400440532013000")
			}
		})
	}
}
