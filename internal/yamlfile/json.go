package yamlfile

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// maxJSONDepth bounds a JSON file; a request in it has its own bound.
const maxJSONDepth = 64

// parseJSON reads a file as JSON into the nodes that the YAML of the same
// meaning has. YAML is nearly a superset: not in a string's escapes.
func (f *File) parseJSON(raw []byte) (*Node, error) {
	p := &jsonReader{raw: raw, dec: jsontext.NewDecoder(bytes.NewBuffer(raw))}
	root, err := p.node()
	if err == nil {
		if _, err = p.dec.ReadToken(); errors.Is(err, io.EOF) {
			return root, nil
		} else if err == nil {
			err = errors.New("a second value after the document")
		}
	}
	if errors.Is(err, io.EOF) && len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	offset, reason := p.dec.InputOffset(), err.Error()
	var se *jsontext.SyntacticError
	if errors.As(err, &se) {
		offset, reason = se.ByteOffset, se.Err.Error()
	}
	line, col := p.place(offset)
	return nil, &Error{File: f.Name, Line: line, Col: col, Reason: reason}
}

type jsonReader struct {
	raw []byte
	dec *jsontext.Decoder
}

func (p *jsonReader) place(offset int64) (line, col int) {
	before := p.raw[:min(offset, int64(len(p.raw)))]
	return bytes.Count(before, []byte{'\n'}) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

// node reads one value; its place is its first byte.
func (p *jsonReader) node() (*Node, error) {
	kind := p.dec.PeekKind() // moves to the value, past commas and spaces
	if kind == '"' {
		return p.text()
	}
	tok, err := p.dec.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &Node{Kind: yaml.ScalarNode, Value: tok.String()}
	start := p.dec.InputOffset() - int64(len(n.Value))
	switch kind {
	case 'n':
		n.Tag = "!!null"
	case 't', 'f':
		n.Tag = "!!bool"
	case '0':
		n.Tag = "!!float"
		if isInteger(n.Value) {
			n.Tag = "!!int"
		}
	case '{':
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	case '[':
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	}
	n.Line, n.Column = p.place(start)
	if n.Kind == yaml.ScalarNode {
		return n, nil
	}
	return n, p.content(n)
}

// text reads a string whole: how long it is with its escapes says where it began.
func (p *jsonReader) text() (*Node, error) {
	raw, err := p.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	n := &Node{Kind: yaml.ScalarNode, Tag: "!!str"}
	n.Line, n.Column = p.place(p.dec.InputOffset() - int64(len(raw)))
	plain, err := jsontext.AppendUnquote(nil, raw)
	n.Value = string(plain)
	return n, err
}

func isInteger(literal string) bool { return !bytes.ContainsAny([]byte(literal), ".eE") }

func (p *jsonReader) content(n *Node) error {
	if p.dec.StackDepth() > maxJSONDepth {
		return errors.New("nested too deep")
	}
	for {
		switch p.dec.PeekKind() {
		case '}', ']':
			_, err := p.dec.ReadToken()
			return err
		}
		child, err := p.node()
		if err != nil {
			return err
		}
		n.Content = append(n.Content, child)
	}
}
