package engine_test

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// hostileCall is what a policy or an asker would write to make a built-in slow,
// large or endless.
type hostileCall struct {
	name       string
	expression string
	input      any
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

func chain(n int, link func(int) any) map[string]any {
	m := map[string]any{}
	for k := range n {
		m[fmt.Sprint("n", k)] = link(k)
	}
	return m
}

func list(n int, of func(int) any) []any {
	out := make([]any, n)
	for k := range out {
		out[k] = of(k)
	}
	return out
}

func hostileCalls(tb testing.TB, keyBits int) []hostileCall {
	long := rep("a", 50_000)
	refs := func(n int) any {
		d := map[string]any{}
		for k := range n {
			next := map[string]any{"$ref": fmt.Sprintf("#/definitions/d%d", k+1)}
			d[fmt.Sprint("d", k)] = map[string]any{"allOf": []any{next, next}}
		}
		d[fmt.Sprint("d", n)] = map[string]any{"type": "object"}
		return map[string]any{"definitions": d, "$ref": "#/definitions/d0"}
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		tb.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	publicDER, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}))
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": "AQAB", "d": b64(key.D.Bytes()), "p": b64(key.Primes[0].Bytes()), "q": b64(key.Primes[1].Bytes()),
		"dp": b64(key.Precomputed.Dp.Bytes()), "dq": b64(key.Precomputed.Dq.Bytes()), "qi": b64(key.Precomputed.Qinv.Bytes())}
	token := b64([]byte(`{"alg":"RS256"}`)) + "." + b64([]byte(`{"a":1}`)) + "." + b64([]byte(rep("x", 512)))
	jwks, _ := json.Marshal(map[string]any{"keys": list(40, func(int) any { return map[string]any{"kty": "RSA", "n": jwk["n"], "e": "AQAB"} })})
	bigN := new(strings.Builder)
	bigN.WriteString("\xff")
	bigN.WriteString(rep("\xff", 2047))
	bigJWKS, _ := json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "n": b64([]byte(bigN.String())), "e": b64([]byte{0x7f, 0xff, 0xff, 0xff})}}})
	return []hostileCall{
		{"sprintf width", `sprintf("%1000000000d", [1])`, nil},
		{"sprintf star", `sprintf("%*d", [1000000000, 1])`, nil},
		{"sprintf index", `sprintf(input.f, [input.s])`, map[string]any{"f": rep("%[1]s", 5000), "s": rep("a", 20000)}},
		{"sprintf quote", `sprintf("%q %v %x", [input.s, input.s, input.s])`, map[string]any{"s": rep("\u0001", 20000)}},
		{"sprintf exponent", `sprintf("%f %d", [1e308, input.n])`, map[string]any{"n": json.Number("99999e99999")}},
		{"sprintf big", `sprintf("%d", [to_number(input.s)])`, map[string]any{"s": rep("9", 50000)}},
		{"regex.replace", `regex.replace(input.s, "", input.s)`, map[string]any{"s": rep("a", 6000)}},
		{"regex.replace groups", `regex.replace(input.s, "(.*)", input.r)`, map[string]any{"s": rep("a", 10000), "r": rep("$1", 5000)}},
		{"regex repeats", `regex.split("((((a{30}){30}){30}){30})", "a")`, nil},
		{"regex repeats 1000", `regex.split("(a{1000}){1000}", "a")`, nil},
		{"regex 100 states", `regex.split(input.p, input.s)`, map[string]any{"p": rep("(a|aa)", 100) + "b", "s": rep("a", 20000)}},
		{"regex long", `regex.find_n(input.p, "a", -1)`, map[string]any{"p": rep("(a|b)*", 8000)}},
		{"regex find all", `regex.find_n("a", input.s, -1)`, map[string]any{"s": long}},
		{"regex unicode class", `regex.find_n(input.p, "a", -1)`, map[string]any{"p": rep(`\pL`, 15000)}},
		{"regex case fold", `regex.find_n(input.p, "a", -1)`, map[string]any{"p": "(?i)" + rep(`[^\pL]`, 8000)}},
		{"regex globs", `regex.globs_match(input.a, input.b)`, map[string]any{"a": rep("a*", 20), "b": rep("b*", 20)}},
		{"regex globs 2", `regex.globs_match(input.a, input.b)`, map[string]any{"a": rep(".*", 14) + "x", "b": rep(".*", 14) + "y"}},
		{"regex globs sets", `regex.globs_match(input.a, input.b)`, map[string]any{"a": rep("[a-z]+", 200), "b": rep("[a-z]+", 200)}},
		{"regex template", `regex.template_match(input.t, "a", "{", "}")`, map[string]any{"t": rep("{a}", 15000)}},
		{"regex template repeats", `regex.template_match("<((((a{30}){30}){30}){30})>", "a", "<", ">")`, nil},
		{"glob.match", `glob.match(input.g, ["."], input.s)`, map[string]any{"g": rep("*a", 200), "s": rep("a", 5000)}},
		{"glob.quote_meta", `glob.quote_meta(input.s)`, map[string]any{"s": rep("*", 50000)}},
		{"semver", `semver.compare(input.s, input.s)`, map[string]any{"s": "1.2." + rep("9", 50000)}},
		{"semver valid", `semver.is_valid(input.s)`, map[string]any{"s": "1.2.3-" + rep("a.", 20000)}},
		{"units", `units.parse("1e999999999")`, nil},
		{"units bytes", `units.parse_bytes("1e999999999K")`, nil},
		{"units long", `units.parse(input.s)`, map[string]any{"s": rep("9", 50000) + "G"}},
		{"bits.lsh", `bits.lsh(1, 1000000000)`, nil},
		{"format_int", `format_int(input.n, 2)`, map[string]any{"n": json.Number(rep("9", 5000))}},
		{"number exponent", `sprintf("%d", [input.n])`, map[string]any{"n": json.Number("1e1000000000")}},
		{"numbers.range", `count(numbers.range(1, 1000000000))`, nil},
		{"numbers.range_step", `numbers.range_step(1, 1000000000000000000000, 1)`, nil},
		{"numbers.range_step 2", `numbers.range_step(1, 1000000, 1)`, nil},
		{"net.cidr_expand", `net.cidr_expand("10.0.0.0/8")`, nil},
		{"net.cidr_expand v6", `net.cidr_expand("2001::/3")`, nil},
		{"net.cidr_expand some", `net.cidr_expand("10.0.0.0/20")`, nil},
		{"net.cidr_expand mapped", `net.cidr_expand("::ffff:10.0.0.0/97")`, nil},
		{"net.cidr_merge", `net.cidr_merge(input.l)`, map[string]any{"l": list(2500, func(k int) any { return fmt.Sprintf("10.%d.%d.0/24", k%256, k/256*2) })}},
		{"net.cidr_merge v6", `net.cidr_merge(input.l)`, map[string]any{"l": list(2500, func(k int) any { return fmt.Sprintf("2001:%x::/128", k*2) })}},
		{"net.cidr_contains_matches", `net.cidr_contains_matches(input.l, input.l)`, map[string]any{"l": list(2500, func(k int) any { return "10.0.0.0/8" })}},
		{"object.subset", `object.subset(input.l, input.m)`, map[string]any{"l": list(15000, func(k int) any { return 1 }), "m": append(list(7000, func(k int) any { return 1 }), 2)}},
		{"strings.any_prefix_match", `strings.any_prefix_match(input.l, input.l)`, map[string]any{"l": list(3000, func(k int) any { return fmt.Sprint("a", k) })}},
		{"strings.any_suffix_match", `strings.any_suffix_match(input.l, input.l)`, map[string]any{"l": list(3000, func(k int) any { return fmt.Sprint("a", k) })}},
		{"indexof_n", `indexof_n(input.s, input.t)`, map[string]any{"s": rep("a", 30000), "t": rep("a", 15000) + "b"}},
		{"strings.count", `strings.count(input.s, input.t)`, map[string]any{"s": rep("a", 30000), "t": rep("a", 15000) + "b"}},
		{"json.patch copies", `json.patch({"a": {"b": 1}}, input.p)`, map[string]any{"p": list(60, func(k int) any {
			return map[string]any{"op": "copy", "from": "/a", "path": fmt.Sprintf("/a/c%d", k)}
		})}},
		{"json.patch many", `json.patch(input.l, input.p)`, map[string]any{"l": list(2000, func(int) any { return 1 }), "p": list(600, func(k int) any { return map[string]any{"op": "remove", "path": "/0"} })}},
		{"json.patch adds", `json.patch(input.l, input.p)`, map[string]any{"l": list(2000, func(int) any { return 1 }), "p": list(600, func(k int) any { return map[string]any{"op": "add", "path": "/0", "value": 1} })}},
		{"json.marshal_with_options", `json.marshal_with_options(input.l, {"prefix": input.s, "indent": input.s, "pretty": true})`, map[string]any{"l": list(2000, func(int) any { return 1 }), "s": rep(" ", 20000)}},
		{"walk", `count([p | walk(input.d, [p, _])])`, map[string]any{"d": json.RawMessage(rep("[", 500) + rep("]", 500))}},
		{"object.union_n", `object.union_n(input.l)`, map[string]any{"l": list(2000, func(k int) any { return map[string]any{fmt.Sprint(k): 1} })}},
		{"yaml bomb", `yaml.unmarshal(input.s)`, map[string]any{"s": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"}},
		{"yaml deep", `yaml.unmarshal(input.s)`, map[string]any{"s": rep("[", 9000) + rep("]", 9000)}},
		{"yaml dashes", `yaml.unmarshal(input.s)`, map[string]any{"s": rep("- ", 9000)}},
		{"yaml merge", `yaml.unmarshal(input.s)`, map[string]any{"s": rep("a: 1\n", 8000)}},
		{"yaml keys", `yaml.unmarshal(input.s)`, map[string]any{"s": rep("? ", 5000)}},
		{"yaml.marshal", `yaml.marshal(input.d)`, map[string]any{"d": json.RawMessage(rep("[", 800) + rep("]", 800))}},
		{"json schema ref loop", `json.match_schema({}, {"$ref": "#"})`, nil},
		{"json schema allOf loop", `json.match_schema({}, {"allOf": [{"$ref": "#"}]})`, nil},
		{"json schema doubling", `json.match_schema({}, input.s)`, map[string]any{"s": refs(40)}},
		{"json schema some doubling", `json.match_schema({}, input.s)`, map[string]any{"s": refs(10)}},
		{"json schema patterns", `json.match_schema({"a": "aaaa"}, {"properties": {"a": {"pattern": "((((a{30}){30}){30}){30})"}}})`, nil},
		{"json schema unique", `json.match_schema(input.l, {"uniqueItems": true})`, map[string]any{"l": list(10000, func(k int) any { return k })}},
		{"json schema unique 2", `json.match_schema(input.l, {"uniqueItems": true})`, map[string]any{"l": list(100, func(k int) any { return k })}},
		{"json schema enum", `json.match_schema(input.l, {"items": {"enum": input.l}})`, map[string]any{"l": list(2000, func(k int) any { return k })}},
		{"json schema required", `json.match_schema(input.l, {"items": {"required": input.r}})`, map[string]any{"l": list(2000, func(k int) any { return map[string]any{} }), "r": list(2000, func(k int) any { return fmt.Sprint(k) })}},
		{"json schema items", `json.match_schema(input.l, {"items": {"allOf": input.r}})`, map[string]any{"l": list(2000, func(k int) any { return k }), "r": list(500, func(k int) any { return map[string]any{"type": "string"} })}},
		{"json schema errors", `json.match_schema({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, {"properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}, "d": {"type": "string"}}, "required": ["x", "y"], "additionalProperties": false})`, nil},
		{"json schema ok", `json.match_schema({"a": 1}, {"properties": {"a": {"type": "integer"}}})`, nil},
		{"json verify", `json.verify_schema(input.s)`, map[string]any{"s": refs(500)}},
		{"json verify any error", `json.verify_schema({"properties": {"a": {"type": "x"}, "b": {"type": "y"}, "c": {"type": "z"}}})`, nil},
		{"json verify one error", `json.verify_schema({"properties": {"a": {"type": "x"}}})`, nil},
		{"json verify deep", `json.verify_schema(input.s)`, map[string]any{"s": json.RawMessage(rep(`{"not":`, 300) + "{}" + rep("}", 300))}},
		{"json verify text deep", `json.verify_schema(input.s)`, map[string]any{"s": rep(`{"not":`, 5000) + "{}" + rep("}", 5000)}},
		{"json verify patterns", `json.verify_schema(input.s)`, map[string]any{"s": map[string]any{"allOf": list(300, func(k int) any { return map[string]any{"pattern": rep(`\pL`, 20)} })}}},
		{"reachable paths", `graph.reachable_paths(input.g, ["n0"])`, map[string]any{"g": chain(40, func(k int) any { return []string{fmt.Sprint("n", k+1), fmt.Sprint("n", k+2)} })}},
		{"reachable chain", `graph.reachable_paths(input.g, ["n0"])`, map[string]any{"g": chain(3000, func(k int) any { return []string{fmt.Sprint("n", k+1)} })}},
		{"reachable complete", `graph.reachable_paths(input.g, ["n0"])`, map[string]any{"g": chain(12, func(k int) any { return list(12, func(j int) any { return fmt.Sprint("n", j) }) })}},
		{"reachable small", `graph.reachable_paths(input.g, ["n0"])`, map[string]any{"g": chain(6, func(k int) any { return list(6, func(j int) any { return fmt.Sprint("n", j) }) })}},
		{"graph.reachable", `graph.reachable(input.g, ["n0"])`, map[string]any{"g": chain(1000, func(k int) any { return []string{fmt.Sprint("n", k+1)} })}},
		{"template printf", `strings.render_template("{{printf \"%1000000000d\" 1}}", {})`, nil},
		{"template ranges", `strings.render_template("{{range .a}}{{range $.a}}{{range $.a}}{{range $.a}}{{end}}{{end}}{{end}}{{end}}", input)`, map[string]any{"a": list(1000, func(k int) any { return k })}},
		{"template two ranges", `strings.render_template("{{range .a}}{{range $.a}}{{end}}{{end}}", input)`, map[string]any{"a": list(100, func(k int) any { return k })}},
		{"template output", `strings.render_template("{{range .a}}{{range $.a}}{{$.s}}{{end}}{{end}}", input)`, map[string]any{"a": list(100, func(k int) any { return k }), "s": rep("a", 1000)}},
		{"template number", `strings.render_template("{{range 1000000000}}{{end}}", {})`, nil},
		{"template self", `strings.render_template("{{define \"a\"}}{{template \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", {})`, nil},
		{"template parens", `strings.render_template(input.s, {})`, map[string]any{"s": "{{" + rep("(", 20000) + rep(")", 20000) + "}}"}},
		{"template ifs", `strings.render_template(input.s, {})`, map[string]any{"s": rep("{{if 1}}", 5000) + rep("{{end}}", 5000)}},
		{"graphql deep", `graphql.parse_query(input.s)`, map[string]any{"s": rep("{a", 10000) + rep("}", 10000)}},
		{"graphql list deep", `graphql.parse_query(input.s)`, map[string]any{"s": "{a(b:" + rep("[", 10000) + rep("]", 10000) + ")}"}},
		{"graphql fields", `graphql.is_valid(input.s, "type Query { a: Query }")`, map[string]any{"s": "{" + rep("a{a} ", 2000) + "}"}},
		{"graphql overlap", `graphql.is_valid(input.s, "type Query { a: Query b: Int }")`, map[string]any{"s": "{" + rep("a{a{a{", 300) + "b" + rep("}}}", 300) + rep("a{a{b}}", 300) + "}"}},
		{"graphql fragments", `graphql.is_valid(input.s, "type Query { a: Query b: Int }")`, map[string]any{"s": fragments(25)}},
		{"graphql schema", `graphql.schema_is_valid(input.s)`, map[string]any{"s": rep("type A { a: Int }\n", 1500)}},
		{"rego.parse_module", `rego.parse_module("a", input.s)`, map[string]any{"s": "package a\n" + rep("p := 1\n", 5000)}},
		{"rego.parse_module deep", `rego.parse_module("a", input.s)`, map[string]any{"s": "package a\np := " + rep("[", 10000) + rep("]", 10000)}},
		{"rego.parse_module sets", `rego.parse_module("a", input.s)`, map[string]any{"s": "package a\np := " + rep("{", 30) + "1" + rep("}", 30)}},
		{"rego.parse_module comprehensions", `rego.parse_module("a", input.s)`, map[string]any{"s": "package a\np := " + rep("[x|x=", 300) + "1" + rep("]", 300)}},
		{"crypto.sha256", `crypto.sha256(input.s)`, map[string]any{"s": long}},
		{"crypto.md5 short", `crypto.md5("a")`, nil},
		{"crypto.hmac.sha512", `crypto.hmac.sha512(input.s, "k")`, map[string]any{"s": long}},
		{"x509 parse", `crypto.x509.parse_certificates(input.s)`, map[string]any{"s": rep("-----BEGIN CERTIFICATE-----\n", 1500)}},
		{"x509 base64", `crypto.x509.parse_certificates(input.s)`, map[string]any{"s": rep("A", 50000)}},
		{"x509 key", `crypto.x509.parse_rsa_private_key(input.s)`, map[string]any{"s": private}},
		{"private keys", `crypto.parse_private_keys(input.s)`, map[string]any{"s": rep(private, 10)}},
		{"jwt verify rs256", `io.jwt.verify_rs256(input.t, input.k)`, map[string]any{"t": token, "k": public}},
		{"jwt verify jwks", `io.jwt.verify_rs256(input.t, input.k)`, map[string]any{"t": token, "k": string(jwks)}},
		{"jwt verify 16k", `io.jwt.verify_rs256(input.t, input.k)`, map[string]any{"t": token, "k": string(bigJWKS)}},
		{"jwt verify es512", `io.jwt.verify_es512(input.t, input.k)`, map[string]any{"t": token, "k": public}},
		{"jwt decode", `io.jwt.decode(input.t)`, map[string]any{"t": token}},
		{"jwt decode deep", `io.jwt.decode(input.t)`, map[string]any{"t": b64([]byte(`{"alg":"RS256"}`)) + "." + b64([]byte(`{"a":`+rep("[", 9000)+rep("]", 9000)+"}")) + "." + "x"}},
		{"jwt sign rs512", `io.jwt.encode_sign({"alg": "RS512"}, {}, input.k)`, map[string]any{"k": jwk}},
		{"jwt sign ps512", `io.jwt.encode_sign({"alg": "PS512"}, {}, input.k)`, map[string]any{"k": jwk}},
		{"jwt sign es256", `io.jwt.encode_sign_raw("{\"alg\": \"ES256\"}", "{}", "{}")`, nil},
		{"jwt sign hs256", `io.jwt.encode_sign({"alg": "HS256"}, {}, {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"})`, nil},
		{"time.parse", `time.parse_ns(input.s, input.s)`, map[string]any{"s": rep("Jan ", 12000)}},
		{"time.format", `time.format([1700000000000000000, "Europe/Berlin", input.s])`, map[string]any{"s": rep("January ", 6000)}},
		{"time.duration", `time.parse_duration_ns(input.s)`, map[string]any{"s": rep("1ns", 15000)}},
		{"time.add_date", `time.add_date(1, 1000000000, 1000000000, 1000000000)`, nil},
		{"time.date zones", `[x | some k in numbers.range(1, 50); x := time.date([k, input.z])]`, map[string]any{"z": "America/Argentina/ComodRivadavia"}},
		{"base64", `base64.decode(input.s)`, map[string]any{"s": rep("A", 50000)}},
		{"hex", `hex.decode(input.s)`, map[string]any{"s": rep("0", 50000)}},
		{"urlquery", `urlquery.decode_object(input.s)`, map[string]any{"s": rep("a=b&", 10000)}},
		{"urlquery encode", `urlquery.encode_object({"a": input.l})`, map[string]any{"l": list(5000, func(k int) any { return "%" })}},
		{"uri.parse", `uri.parse(input.s)`, map[string]any{"s": "http://a/" + rep("%41", 15000)}},
		{"strings.render_template vars", `strings.render_template("{{.a}}", input)`, map[string]any{"a": list(8000, func(k int) any { return k })}},
		{"strings.replace_n", `strings.replace_n(input.p, input.s)`, map[string]any{"p": map[string]any{"a": rep("b", 5000)}, "s": rep("a", 5000)}},
		{"strings.split_n", `strings.split_n(input.s, "", -1)`, map[string]any{"s": long}},
		{"aws", `providers.aws.sign_req({"method": "get", "url": "https://a/b", "headers": {}}, {"aws_service": "s3", "aws_access_key": "a", "aws_secret_access_key": "b", "aws_region": "c"}, 1)`, nil},
		{"uuid", `uuid.rfc4122(input.s)`, map[string]any{"s": long}},
		{"rand.intn", `rand.intn("a", 9007199254740991)`, nil},
		{"set_diff", `regex.split(",", concat(",", {x | some x in input.l}))`, map[string]any{"l": list(3000, func(k int) any { return fmt.Sprint(k) })}},
	}
}

func fragments(n int) string {
	var s strings.Builder
	s.WriteString("{...f0}")
	for k := range n {
		fmt.Fprintf(&s, " fragment f%d on Query {a{...f%d} a{...f%d}}", k, k+1, k+1)
	}
	fmt.Fprintf(&s, " fragment f%d on Query {b}", n)
	return s.String()
}

// TestHostileBuiltins makes each call twice, with the most fuel that there is:
// what comes of it is in the table, and comes again.
func TestHostileBuiltins(t *testing.T) {
	calls := hostileCalls(t, 2048)
	m := loadCalls(t, calls)
	var table strings.Builder
	for n, c := range calls {
		call := c.call(t, m, n)
		first, err := m.Call(call)
		outcome := "answers"
		if code := trapCode(t, err); code != "" {
			outcome = string(code)
		}
		fmt.Fprintf(&table, "%s: %s\n", c.name, outcome)
		again, errAgain := m.Call(call)
		if string(first.Output) != string(again.Output) || fmt.Sprint(err) != fmt.Sprint(errAgain) || first.Fuel != again.Fuel {
			t.Errorf("%s: the second call is another: %.200s, %v, %d; %.200s, %v, %d", c.name, first.Output, err, first.Fuel, again.Output, errAgain, again.Fuel)
		}
	}
	const golden = "testdata/hostile_builtins.txt"
	if *updateHostile {
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != table.String() {
		t.Errorf("%s differs (go test ./runtime/engine -run HostileBuiltins -update-hostile): %v\n%s", golden, err, table.String())
	}
}

var updateHostile = flag.Bool("update-hostile", false, "rewrite testdata/hostile_builtins.txt")

// loadCalls makes one module of all of them, each an entry point.
func loadCalls(tb testing.TB, calls []hostileCall) *engine.Module {
	tb.Helper()
	policy, entrypoints := "package p\n", make([]string, len(calls))
	for n, c := range calls {
		policy += fmt.Sprintf("\nx%d := %s\n", n, c.expression)
		entrypoints[n] = fmt.Sprintf("p/x%d", n)
	}
	return load(tb, newEngine(tb, engine.Config{}), engine.Spec{Name: "hostile", Wasm: compileRego(tb, policy, entrypoints...), ABI: abi.OPA1, Pool: 1})
}

func (c hostileCall) call(tb testing.TB, m *engine.Module, n int) abi.Call {
	tb.Helper()
	call := abi.Call{Now: frozen, Fuel: abi.MaxFuel, Entrypoint: m.Entrypoints()[fmt.Sprintf("p/x%d", n)]}
	if c.input != nil {
		call.Input = marshal(tb, c.input)
	}
	return call
}

// BenchmarkBuiltins prints the ten calls that take longest, and the ten that take
// longest for their fuel, by the time of the processor. -benchtime 1x is enough.
func BenchmarkBuiltins(b *testing.B) {
	type measured struct {
		name  string
		time  time.Duration
		fuel  uint64
		bytes uint64
	}
	calls := hostileCalls(b, 4096)
	module := loadCalls(b, calls)
	var all []measured
	for n, c := range calls {
		call := c.call(b, module, n)
		call.Fuel = abi.DefaultFuel
		best := measured{name: c.name, time: time.Hour}
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := processorTime(b)
			result, _ := module.Call(call) // a trap is an answer too
			taken := processorTime(b) - start
			runtime.ReadMemStats(&after)
			if taken < best.time {
				best = measured{c.name, taken, result.Fuel, after.TotalAlloc - before.TotalAlloc}
			}
		}
		all = append(all, best)
	}
	perUnit := func(m measured) float64 { return float64(m.time) / float64(m.fuel) }
	for _, order := range []func(a, b measured) int{
		func(x, y measured) int { return cmp.Compare(y.time, x.time) },
		func(x, y measured) int { return cmp.Compare(perUnit(y)*float64(y.time), perUnit(x)*float64(x.time)) },
	} {
		slices.SortFunc(all, order)
		for _, m := range all[:10] {
			fmt.Printf("%-28s %9d ns/call %9d units %5.1f ns/unit %7d KiB allocated\n", m.name, m.time, m.fuel, perUnit(m), m.bytes>>10)
		}
		fmt.Println()
	}
}

// processorTime is what this process has used: other processes do not count.
func processorTime(tb testing.TB) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
