package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxBuiltinResult bounds, in bytes, what a built-in whose result can be much
// longer than its arguments may make.
const maxBuiltinResult = 1 << 20

// errWork ends a call whose work no fuel of one decision pays for.
var errWork = errors.New("the work of this call is out of proportion to its arguments")

// builtinBounds has an entry for every built-in whose work or result is not
// bounded by the length of its arguments.
var builtinBounds = map[string]func(*instance, arguments) error{
	"graph.reachable_paths":     boundPaths,
	"graphql.is_valid":          boundGraphQL,
	"graphql.parse":             boundGraphQL,
	"graphql.parse_and_verify":  boundGraphQL,
	"graphql.parse_query":       boundNesting,
	"graphql.parse_schema":      boundNesting,
	"graphql.schema_is_valid":   boundGraphQL,
	"internal.print":            boundPrint,
	"indexof_n":                 boundProduct,
	"io.jwt.encode_sign":        boundSignature,
	"io.jwt.encode_sign_raw":    boundSignature,
	"json.marshal_with_options": boundIndent,
	"json.match_schema":         boundMatchSchema,
	"json.patch":                boundPatch,
	"json.verify_schema":        boundVerifySchema,
	"net.cidr_contains_matches": boundProduct,
	"net.cidr_expand":           boundCIDR,
	"net.cidr_merge":            boundSquare,
	"numbers.range":             boundRange,
	"numbers.range_step":        boundRange,
	"object.subset":             boundProduct,
	"regex.find_n":              boundPattern(0, 1),
	"regex.globs_match":         boundGlobs,
	"regex.replace":             boundReplace,
	"regex.split":               boundPattern(0, 1),
	"regex.template_match":      boundTemplatePattern,
	"rego.parse_module":         boundNesting,
	"sprintf":                   boundFormat,
	"strings.any_prefix_match":  boundProduct,
	"strings.any_suffix_match":  boundProduct,
	"strings.render_template":   boundRender,
	"time.clock":                refuseLocalTime,
	"time.date":                 refuseLocalTime,
	"time.diff":                 refuseLocalTime,
	"time.format":               refuseLocalTime,
	"time.weekday":              refuseLocalTime,
	"time.add_date":             refuseLocalTime,
	"yaml.is_valid":             boundAliases,
	"yaml.unmarshal":            boundAliases,
}

// text returns an argument that is a string, or "".
func (a arguments) text(n int) string {
	if n < len(a.terms) {
		if s, ok := a.terms[n].Value.(ast.String); ok {
			return string(s)
		}
	}
	return ""
}

// product is a*b, or the most that there is.
func product(a, b uint64) uint64 {
	if a != 0 && b > (1<<62)/a {
		return 1 << 62
	}
	return a * b
}

// boundProduct is for what compares every part of one argument with every part
// of another.
func boundProduct(i *instance, a arguments) error {
	i.charge(product(a.bytes[0], a.bytes[1]) / 2)
	return nil
}

func boundSquare(i *instance, a arguments) error {
	i.charge(product(a.bytes[0], a.bytes[0]) / 2)
	return nil
}

// wide finds the verbs of sprintf that pad to a width or precision of their own,
// and those that name their argument, which can be repeated.
var wide = regexp.MustCompile(`%[^%a-zA-Z]*(\*|\d{4,}|\[)`)

func boundFormat(_ *instance, a arguments) error {
	if wide.MatchString(a.text(0)) {
		return errors.New("a width or precision of more than 999 or of an argument, or an argument by its number")
	}
	return nil
}

// boundIndent bounds what is written before every line.
func boundIndent(_ *instance, a arguments) error {
	if product(a.bytes[0]+1, a.bytes[1]) > maxBuiltinResult {
		return fmt.Errorf("the result could be longer than %d bytes", maxBuiltinResult)
	}
	return nil
}

// boundPrint bounds the lines that sets among the operands multiply to.
func boundPrint(i *instance, a arguments) error {
	operands, ok := a.terms[0].Value.(*ast.Array)
	if !ok {
		return nil
	}
	lines := uint64(1)
	operands.Foreach(func(t *ast.Term) {
		if set, ok := t.Value.(ast.Set); ok {
			lines = product(lines, uint64(max(set.Len(), 1)))
		}
	})
	i.charge(product(lines, a.bytes[0]))
	return nil
}

// Units for each address and number that a range makes.
const (
	addressFuel = 64
	numberFuel  = 32
)

func boundCIDR(i *instance, a arguments) error {
	prefix, err := netip.ParsePrefix(a.text(0))
	if err != nil {
		return nil // the built-in's own error
	}
	free := prefix.Addr().BitLen() - prefix.Bits()
	if free > 32 {
		return errWork
	}
	i.charge(addressFuel << free)
	return nil
}

// boundRange counts the numbers from the first to the second argument, by the
// third.
func boundRange(i *instance, a arguments) error {
	numbers := make([]*big.Int, len(a.terms))
	for n, t := range a.terms {
		literal, ok := t.Value.(ast.Number)
		if !ok {
			return nil
		}
		if numbers[n], ok = new(big.Int).SetString(string(literal), 10); !ok {
			return errWork // a float, or a literal with an exponent
		}
	}
	count := new(big.Int).Sub(numbers[1], numbers[0])
	count.Abs(count)
	if len(numbers) > 2 && numbers[2].Sign() > 0 {
		count.Quo(count, numbers[2])
	}
	if count.BitLen() > 32 {
		return errWork
	}
	i.charge(numberFuel * count.Uint64())
	return nil
}

// maxPatternSize bounds the instructions of a compiled pattern.
const maxPatternSize = 10_000

// boundPattern is for a regular expression applied to a text: their sizes'
// product bounds the work, and repetitions make a pattern larger than its text.
func boundPattern(pattern, text int) func(*instance, arguments) error {
	return func(i *instance, a arguments) error {
		size, err := i.patternSize(a.text(pattern))
		if err != nil {
			return err
		}
		i.charge(product(size, uint64(len(a.text(text)))+patternFuel))
		return nil
	}
}

// Units for a byte of a pattern, and for compiling one instruction of it. A short
// class of Unicode has hundreds of ranges.
const (
	patternByteFuel = 400
	patternFuel     = 64
)

// patternSize is about how many instructions a pattern has; 1 for one that is
// none, which is the built-in's own error. It charges for the look at it.
func (i *instance) patternSize(pattern string) (uint64, error) {
	i.charge(patternByteFuel * uint64(len(pattern)))
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 1, nil
	}
	size := expressionSize(parsed)
	if size > maxPatternSize {
		return 0, fmt.Errorf("the pattern has more than %d steps", maxPatternSize)
	}
	return size, nil
}

func expressionSize(e *syntax.Regexp) uint64 {
	size := uint64(1 + len(e.Rune)/2)
	for _, sub := range e.Sub {
		size += expressionSize(sub)
	}
	if e.Op == syntax.OpRepeat {
		size = product(size, uint64(max(e.Max, e.Min, 1)))
	}
	return min(size, 1<<40)
}

// boundReplace also bounds the result: (text, pattern, replacement).
func boundReplace(i *instance, a arguments) error {
	if (len(a.text(0))+1)*max(len(a.text(2)), 1) > maxBuiltinResult {
		return fmt.Errorf("the result could be longer than %d bytes", maxBuiltinResult)
	}
	return boundPattern(1, 0)(i, a)
}

// boundGlobs is for the intersection of two globs, which tries to put every
// star of one over every rest of the other.
func boundGlobs(i *instance, a arguments) error {
	work := uint64(1)
	for n := range 2 {
		stars := strings.Count(a.text(n), "*") + strings.Count(a.text(n), "+")
		for range stars {
			work = product(work, uint64(len(a.text(1-n)))+1)
		}
	}
	i.charge(work)
	return nil
}

// repeats finds the numbers of a pattern's repetitions.
var repeats = regexp.MustCompile(`[{,](\d+)`)

// boundTemplatePattern knows the patterns of a template only as parts of it:
// their sizes are bounded by the repetitions that occur in it.
func boundTemplatePattern(i *instance, a arguments) error {
	size := uint64(len(a.text(0)) + 1)
	for _, match := range repeats.FindAllStringSubmatch(a.text(0), -1) {
		times, err := strconv.ParseUint(match[1], 10, 32)
		if err != nil {
			return errWork
		}
		size = product(size, max(times, 1))
	}
	i.charge(product(size, uint64(len(a.text(1)))+patternFuel))
	return nil
}

// refuseLocalTime: the zone of the machine is nothing that a decision may depend on.
func refuseLocalTime(_ *instance, a arguments) error {
	for _, t := range a.terms {
		if array, ok := t.Value.(*ast.Array); ok && array.Len() > 1 && array.Elem(1).Equal(ast.StringTerm("Local")) {
			return errors.New(`the time zone "Local" is that of the machine`)
		}
	}
	return nil
}

// nestingFuel is the price of a byte for each bracket that can be open around it.
const nestingFuel = 24

// boundNesting is for parsers that try what is within brackets more than once.
func boundNesting(i *instance, a arguments) error {
	for n := range a.terms {
		i.charge(product(nestingFuel*uint64(len(a.text(n))), nesting(a.text(n))+2))
	}
	return nil
}

// nesting is how many brackets are open at most.
func nesting(text string) uint64 {
	open, most := 0, 0
	for n := range len(text) {
		switch text[n] {
		case '(', '[', '{':
			open++
			most = max(most, open)
		case ')', ']', '}':
			open--
		}
	}
	return uint64(most)
}

// nameFuel is the price of a pair of names of a GraphQL document.
const nameFuel = 40

// boundGraphQL is for the validation, which compares each field with each other.
func boundGraphQL(i *instance, a arguments) error {
	for n := range a.terms {
		names := uint64(len(strings.FieldsFunc(a.text(n), func(r rune) bool { return r < '0' || r > 'z' })))
		i.charge(product(nameFuel*names, names))
	}
	return boundNesting(i, a)
}

// boundSignature charges for a key by the cube of its length, as RSA's work
// grows, and refuses signatures that are never the same twice.
func boundSignature(i *instance, a arguments) error {
	var header struct{ Alg string }
	if headers, ok := a.terms[0].Value.(ast.String); ok {
		if json.Unmarshal([]byte(headers), &header) != nil {
			return nil // the built-in's own error
		}
	} else if alg := a.terms[0].Get(ast.StringTerm("alg")); alg != nil {
		header.Alg = arguments{terms: []*ast.Term{alg}}.text(0)
	}
	if strings.HasPrefix(header.Alg, "ES") || strings.HasPrefix(header.Alg, "PS") {
		return fmt.Errorf("a signature by %s is random: use RS, HS or EdDSA", header.Alg)
	}
	key := a.bytes[len(a.bytes)-1]
	i.charge(product(product(key, key), key) / 50_000)
	return nil
}

var (
	anchors = regexp.MustCompile(`(?:^|[\s\[{,:-])&[^\s\[\]{},]`)
	aliases = regexp.MustCompile(`(?:^|[\s\[{,:-])\*[^\s\[\]{},]`)
)

// yamlByteFuel is the price of a byte of YAML, beside that of any argument.
const yamlByteFuel = 48

// boundAliases bounds what the aliases of a YAML text can unfold to: with as many
// anchors, each of them stands for the one before it.
func boundAliases(i *instance, a arguments) error {
	text := a.text(0)
	i.charge(yamlByteFuel * uint64(len(text)))
	levels := uint64(len(anchors.FindAllString(text, -1)))
	if levels == 0 {
		return nil
	}
	each := uint64(len(aliases.FindAllString(text, -1)))/levels + 1
	length := uint64(len(text))
	for range levels {
		length = product(length, each)
	}
	if length > maxBuiltinResult {
		return fmt.Errorf("its aliases could unfold to more than %d bytes", maxBuiltinResult)
	}
	i.charge(builtinByteFuel * length)
	return nil
}
