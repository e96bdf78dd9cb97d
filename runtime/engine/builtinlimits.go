package engine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// nativeBuiltins are the functions that OPA's compiler puts into the module
// itself. A module that asks the host for one was not made by OPA, and among
// them are those whose result no length of an argument bounds: bits.lsh,
// replace, concat, format_int.
var nativeBuiltins = newNameSet(`abs all and any array.concat array.flatten array.reverse array.slice assign base64.decode
	base64.encode base64.is_valid base64url.decode base64url.encode bits.and bits.lsh bits.negate bits.or bits.rsh bits.xor ceil
	concat contains count div endswith eq equal floor format_int glob.match graph.reachable gt gte indexof internal.member_2
	internal.member_3 internal.template_string intersection is_array is_boolean is_null is_number is_object is_set is_string
	json.filter json.is_valid json.marshal json.remove json.unmarshal lower lt lte max min minus mul net.cidr_contains
	net.cidr_intersects neq object.filter object.get object.keys object.remove object.union object.union_n or plus product
	regex.find_all_string_submatch_n regex.is_valid regex.match rem replace round sort split startswith strings.replace_n
	strings.reverse substring sum to_number trim trim_left trim_prefix trim_right trim_space trim_suffix type_name union
	upper walk`)

func newNameSet(names string) map[string]bool {
	set := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		set[name] = true
	}
	return set
}

// maxExponent bounds the decimal exponent of numbers that built-ins are given:
// some write all digits.
const maxExponent = 1_000

// boundedNumbers refuses terms with a number whose digits would be far more
// than its text. Built-ins that read numbers from texts have bounds of their own.
func boundedNumbers(terms []*ast.Term) (err error) {
	for _, term := range terms {
		ast.WalkTerms(term, func(t *ast.Term) bool {
			if number, ok := t.Value.(ast.Number); ok && tooWide(string(number)) {
				err = fmt.Errorf("a number whose exponent is beyond %d", maxExponent)
			}
			return err != nil
		})
	}
	return err
}

func tooWide(number string) bool {
	at := strings.IndexAny(number, "eE")
	if at < 0 {
		return false
	}
	n, err := strconv.Atoi(number[at+1:])
	return err != nil || n > maxExponent || n < -maxExponent
}

// boundPatch refuses a patch whose copies could multiply the document: each may
// double it.
func boundPatch(_ *instance, a arguments) error {
	list, ok := a.terms[1].Value.(*ast.Array)
	if !ok {
		return nil
	}
	size := a.bytes[0]
	list.Foreach(func(operation *ast.Term) {
		if kind := operation.Get(ast.StringTerm("op")); kind != nil && kind.Equal(ast.StringTerm("copy")) && size <= maxBuiltinResult {
			size *= 2
		}
	})
	if size > maxBuiltinResult {
		return errors.New("its copies could make the document too long")
	}
	return nil
}
