package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

var errTerm = errors.New("not a value of OPA's")

// parseTerm reads what opa_value_dump writes: JSON, and beside it sets and keys
// that are no strings. Numbers keep their literals. The text is overwritten.
func parseTerm(text []byte) (*ast.Term, error) {
	r := termReader{text: unspaced(text)}
	t, err := r.term()
	if err == nil && len(r.text) > 0 {
		err = errTerm
	}
	return t, err
}

type termReader struct {
	text  []byte // not read yet
	depth int
}

// accept takes a token if it comes next.
func (r *termReader) accept(token string) bool {
	if !bytes.HasPrefix(r.text, []byte(token)) {
		return false
	}
	r.text = r.text[len(token):]
	return true
}

func (r *termReader) term() (*ast.Term, error) {
	if r.depth++; r.depth > abi.MaxCallDepth {
		return nil, fmt.Errorf("%w: nested too deep", errTerm)
	}
	defer func() { r.depth-- }()
	switch {
	case r.accept("["):
		return r.array()
	case r.accept("{"):
		return r.objectOrSet()
	case r.accept(`"`):
		return r.string()
	case r.accept("set()"):
		return ast.SetTerm(), nil
	case r.accept("null"):
		return ast.NullTerm(), nil
	case r.accept("true"):
		return ast.BooleanTerm(true), nil
	case r.accept("false"):
		return ast.BooleanTerm(false), nil
	}
	return r.number()
}

func (r *termReader) number() (*ast.Term, error) {
	end := bytes.IndexAny(r.text, ",:]}")
	if end < 0 {
		end = len(r.text)
	}
	literal := r.text[:end]
	r.text = r.text[end:]
	if digits, negative := bytes.CutPrefix(literal, []byte{'-'}); bytes.HasPrefix(digits, []byte{'.'}) {
		literal = append([]byte("-0"), digits...) // Rego has .5, JSON has not
		if !negative {
			literal = literal[1:]
		}
	}
	if !json.Valid(literal) {
		return nil, errTerm
	}
	value, err := ast.InterfaceToValue(json.Number(literal)) // refuses exponents that would take for ever
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTerm, err)
	}
	return ast.NewTerm(value), nil
}

func (r *termReader) string() (*ast.Term, error) {
	end := stringEnd(r.text, 0)
	if end >= len(r.text) {
		return nil, errTerm
	}
	literal := r.text[:end]
	r.text = r.text[end+1:]
	if bytes.ContainsFunc(literal, func(c rune) bool { return c < ' ' }) {
		return nil, errTerm
	}
	if bytes.IndexByte(literal, '\\') < 0 {
		return ast.StringTerm(strings.ToValidUTF8(string(literal), "\ufffd")), nil
	}
	var s string
	if err := json.Unmarshal(slices.Concat([]byte{'"'}, literal, []byte{'"'}), &s); err != nil {
		return nil, errTerm
	}
	return ast.StringTerm(s), nil
}

func (r *termReader) array() (*ast.Term, error) {
	elements, err := r.list("]", nil)
	return ast.ArrayTerm(elements...), err
}

// list reads the elements behind those it is given, up to the closing bracket.
func (r *termReader) list(closing string, elements []*ast.Term) ([]*ast.Term, error) {
	for !r.accept(closing) {
		if len(elements) > 0 && !r.accept(",") {
			return nil, errTerm
		}
		t, err := r.term()
		if err != nil {
			return nil, err
		}
		elements = append(elements, t)
	}
	return elements, nil
}

// objectOrSet reads a colon behind the first element, or not.
func (r *termReader) objectOrSet() (*ast.Term, error) {
	if r.accept("}") {
		return ast.ObjectTerm(), nil
	}
	first, err := r.term()
	if err != nil {
		return nil, err
	}
	if !r.accept(":") {
		elements, err := r.list("}", []*ast.Term{first})
		return ast.SetTerm(elements...), err
	}
	return r.object(first)
}

func (r *termReader) object(key *ast.Term) (*ast.Term, error) {
	object := ast.NewObject()
	for {
		value, err := r.term()
		if err != nil {
			return nil, err
		}
		object.Insert(key, value)
		if r.accept("}") {
			return ast.NewTerm(object), nil
		}
		if !r.accept(",") {
			return nil, errTerm
		}
		if key, err = r.term(); err != nil {
			return nil, err
		}
		if !r.accept(":") {
			return nil, errTerm
		}
	}
}

var errTooLong = errors.New("too long")

// termWriter writes values as opa_value_parse reads them, or as JSON as OPA's
// data API shows them: a set is a sorted array, and a key that is no string its
// text.
type termWriter struct {
	text  []byte
	json  bool
	limit int // of the text, in bytes
}

func (w *termWriter) term(t *ast.Term) error {
	if len(w.text) > w.limit {
		return errTooLong
	}
	switch v := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number:
		w.text = append(w.text, v.String()...)
		return nil
	case ast.String:
		w.text = appendString(w.text, string(v))
		return nil
	case *ast.Array:
		return w.list('[', v.Len(), v.Elem, ']')
	case ast.Set:
		return w.set(v)
	case ast.Object:
		return w.object(v)
	}
	return fmt.Errorf("%w: %T", errTerm, t.Value)
}

func (w *termWriter) list(opening byte, n int, element func(int) *ast.Term, closing byte) error {
	w.text = append(w.text, opening)
	for k := range n {
		if k > 0 {
			w.text = append(w.text, ',')
		}
		if err := w.term(element(k)); err != nil {
			return err
		}
	}
	w.text = append(w.text, closing)
	return nil
}

func (w *termWriter) set(set ast.Set) error {
	elements := set.Slice() // sorted
	element := func(k int) *ast.Term { return elements[k] }
	switch {
	case w.json:
		return w.list('[', len(elements), element, ']')
	case len(elements) == 0:
		w.text = append(w.text, "set()"...)
		return nil
	}
	return w.list('{', len(elements), element, '}')
}

func (w *termWriter) object(object ast.Object) error {
	w.text = append(w.text, '{')
	for k, key := range object.Keys() {
		if k > 0 {
			w.text = append(w.text, ',')
		}
		if err := w.key(key); err != nil {
			return err
		}
		w.text = append(w.text, ':')
		if err := w.term(object.Get(key)); err != nil {
			return err
		}
	}
	w.text = append(w.text, '}')
	return nil
}

func (w *termWriter) key(key *ast.Term) error {
	if _, isString := key.Value.(ast.String); isString || !w.json {
		return w.term(key)
	}
	inner := termWriter{json: true, limit: w.limit}
	err := inner.term(key)
	w.text = appendString(w.text, string(inner.text))
	return err
}

// appendString escapes what JSON must have escaped and nothing else. Bytes that
// are no UTF-8 become the replacement character, as in OPA's answers.
func appendString(to []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	to = append(to, '"')
	for n := range len(s) {
		switch c := s[n]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = fmt.Appendf(to, `\u%04x`, c)
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// answerJSON turns the set of answers that opa_value_dump wrote into the JSON
// that OPA's data API would show. Almost always it is that already, but for its
// outer brackets, which are changed in place. It checks nothing: a module that is
// not OPA's can dump anything, and who reads the answer finds out.
func answerJSON(text []byte) ([]byte, error) {
	text = unspaced(text)
	if string(text) == "set()" {
		return []byte("[]"), nil
	}
	if last := len(text) - 1; last > 1 && text[0] == '{' && text[last] == '}' && isJSON(text[1:last]) {
		text[0], text[last] = '[', ']'
		return text, nil
	}
	t, err := parseTerm(text)
	if err != nil {
		return nil, err
	}
	w := termWriter{json: true, limit: abi.MaxOutput}
	err = w.term(t)
	return w.text, err
}

// unspaced takes the spaces out that opa_value_dump writes behind commas and colons.
func unspaced(text []byte) []byte {
	kept := 0
	for n := 0; n < len(text); n++ {
		end := n + 1
		switch text[n] {
		case ' ':
			continue
		case '"':
			end = min(stringEnd(text, end)+1, len(text))
		}
		kept += copy(text[kept:], text[n:end])
		n = end - 1
	}
	return text[:kept]
}

// isJSON says whether a dumped value has neither sets nor keys that are no strings.
func isJSON(text []byte) bool {
	var room [32]byte
	open := append(room[:0], 0) // brackets
	key := false                // comes next
	for n := 0; n < len(text); n++ {
		c := text[n]
		if key && c != '"' && c != '}' {
			return false
		}
		switch c {
		case '"':
			if n = stringEnd(text, n+1); key && !bytes.HasPrefix(text[min(n+1, len(text)):], []byte{':'}) {
				return false
			}
			key = false
		case '{', '[':
			open = append(open, c)
			key = c == '{'
		case '}', ']':
			if open = open[:len(open)-1]; len(open) == 0 {
				return false
			}
			key = false
		case ',':
			key = open[len(open)-1] == '{'
		case '(': // set()
			return false
		case '.': // without a digit before it
			if before := text[max(n-1, 0)]; before < '0' || before > '9' {
				return false
			}
		}
	}
	return true
}

// stringEnd returns where the string ends that has begun before at.
func stringEnd(text []byte, at int) int {
	for ; at < len(text) && text[at] != '"'; at++ {
		if text[at] == '\\' {
			at++
		}
	}
	return at
}
