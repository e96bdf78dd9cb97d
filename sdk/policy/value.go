package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of a request that comes as JSON.
const (
	MaxRequestBytes = 256 << 10
	MaxDepth        = 32
)

// A SyntaxError says where a JSON document is wrong and why.
type SyntaxError struct {
	Offset    int64  // bytes before the error
	Line, Col int    // both from 1; Col in bytes
	Pointer   string // RFC 6901 pointer of the value at fault
	Reason    string
}

func (e *SyntaxError) Error() string {
	at := ""
	if e.Pointer != "" {
		at = fmt.Sprintf(" at %q", e.Pointer)
	}
	return fmt.Sprintf("line %d column %d (byte %d)%s: %s", e.Line, e.Col, e.Offset, at, e.Reason)
}

// ParseValue reads exactly one JSON document (RFC 8259, I-JSON's unique names)
// into policy values. Integer literals within int64 become int64, all other
// numbers float64. Duplicate names, invalid UTF-8, numbers that overflow
// float64, more than MaxDepth levels and anything after the document are a
// *SyntaxError.
func ParseValue(doc []byte) (any, error) {
	p := newParser(doc)
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	return v, p.end()
}

// parser turns jsontext tokens into policy values and errors into positions.
type parser struct {
	doc []byte
	dec *jsontext.Decoder
}

func newParser(doc []byte) *parser {
	return &parser{doc: doc, dec: jsontext.NewDecoder(bytes.NewBuffer(doc))}
}

func (p *parser) value() (any, error) {
	switch p.dec.PeekKind() {
	case '{':
		m := map[string]any{}
		return m, p.object(func(name string) (err error) {
			m[name], err = p.value()
			return err
		})
	case '[':
		l := []any{}
		err := p.array(func() error {
			v, err := p.value()
			l = append(l, v)
			return err
		})
		return l, err
	}
	tok, err := p.dec.ReadToken()
	if err != nil {
		return nil, p.syntax(err)
	}
	switch tok.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return tok.Bool(), nil
	case '"':
		return tok.String(), nil
	case '0':
		return p.number(tok.String())
	}
	return nil, p.fail("unexpected token")
}

func (p *parser) number(lit string) (any, error) {
	if n, err := strconv.ParseInt(lit, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return nil, p.fail("number %.40s is outside the range of a 64-bit float", lit)
	}
	return f, nil
}

func (p *parser) object(member func(name string) error) error {
	if err := p.open(); err != nil {
		return err
	}
	for p.dec.PeekKind() != '}' {
		tok, err := p.dec.ReadToken()
		if err != nil {
			return p.syntax(err)
		}
		if err := member(tok.String()); err != nil {
			return err
		}
	}
	return p.close()
}

func (p *parser) array(element func() error) error {
	if err := p.open(); err != nil {
		return err
	}
	for p.dec.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	return p.close()
}

func (p *parser) open() error {
	if _, err := p.dec.ReadToken(); err != nil {
		return p.syntax(err)
	}
	if p.dec.StackDepth() > MaxDepth {
		return p.fail("nested more than %d levels deep", MaxDepth)
	}
	return nil
}

func (p *parser) close() error {
	if _, err := p.dec.ReadToken(); err != nil {
		return p.syntax(err)
	}
	return nil
}

func (p *parser) end() error {
	tok, err := p.dec.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return p.syntax(err)
	default:
		return p.fail("a second value (%v) after the document", tok.Kind())
	}
}

// fail reports reason at the token that was read last.
func (p *parser) fail(reason string, args ...any) error {
	return p.at(p.dec.InputOffset(), string(p.dec.StackPointer()), fmt.Sprintf(reason, args...))
}

// syntax gives an error of the tokenizer its place in the document.
func (p *parser) syntax(err error) error {
	offset, pointer, reason := p.dec.InputOffset(), string(p.dec.StackPointer()), err.Error()
	var se *jsontext.SyntacticError
	switch {
	case errors.As(err, &se):
		offset, pointer, reason = se.ByteOffset, string(se.JSONPointer), se.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		offset, reason = int64(len(p.doc)), "the document ends too early"
	}
	return p.at(offset, pointer, reason)
}

func (p *parser) at(offset int64, pointer, reason string) error {
	offset = min(offset, int64(len(p.doc)))
	before := p.doc[:offset]
	line := bytes.Count(before, []byte{'\n'}) + 1
	col := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	return &SyntaxError{Offset: offset, Line: line, Col: col, Pointer: pointer, Reason: reason}
}
