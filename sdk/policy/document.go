package policy

import (
	"bytes"
	"unicode/utf8"
)

// parseBare reads a request that is nothing but a document, as most askers of
// Rego send it, without making values of it: the module parses the JSON itself.
// It reports false for everything that ParseRequest must look at more closely,
// errors among it.
func parseBare(point string, body []byte) (*Request, bool) {
	if len(body) > MaxRequestBytes {
		return nil, false
	}
	s := skipper{doc: body}
	if s.next() != '{' || s.next() != '"' || !s.word(`document"`) || s.next() != ':' {
		return nil, false
	}
	s.space()
	start := s.at
	if !s.value(1) {
		return nil, false
	}
	end := s.at
	if s.next() != '}' {
		return nil, false
	}
	if s.space(); s.at != len(body) {
		return nil, false
	}
	return &Request{Point: point, source: body, document: body[start:end]}, true
}

// WithDocument returns the request with Document made from its JSON, the request
// itself if there is nothing to make.
func (r *Request) WithDocument() (*Request, error) {
	if r.Document != nil || r.document == nil {
		return r, nil
	}
	value, err := ParseValue(r.document)
	if err != nil {
		return nil, err
	}
	full := *r
	full.Document = value
	return &full, nil
}

// maxSkippedMembers is how many members of one object a skipper compares.
const maxSkippedMembers = 32

// A skipper finds the end of a JSON value and accepts nothing that ParseValue
// refuses. What it is not sure of it does not accept.
type skipper struct {
	doc []byte
	at  int
}

func (s *skipper) space() {
	for s.at < len(s.doc) && (s.doc[s.at] == ' ' || s.doc[s.at] == '\n' || s.doc[s.at] == '\t' || s.doc[s.at] == '\r') {
		s.at++
	}
}

// next takes the next byte that is not white space, 0 at the end.
func (s *skipper) next() byte {
	s.space()
	if s.at == len(s.doc) {
		return 0
	}
	s.at++
	return s.doc[s.at-1]
}

func (s *skipper) word(rest string) bool {
	if !bytes.HasPrefix(s.doc[s.at:], []byte(rest)) {
		return false
	}
	s.at += len(rest)
	return true
}

// value skips a value inside of so many open objects and arrays.
func (s *skipper) value(depth int) bool {
	switch first := s.next(); first {
	case '{':
		return depth < MaxDepth && s.object(depth+1)
	case '[':
		return depth < MaxDepth && s.array(depth+1)
	case '"':
		_, ok := s.text()
		return ok
	case 'n':
		return s.word("ull")
	case 't':
		return s.word("rue")
	case 'f':
		return s.word("alse")
	case '-':
		return s.digits() && s.fraction()
	default:
		s.at--
		return '0' <= first && first <= '9' && s.digits() && s.fraction()
	}
}

// digits skips an integer. One of so many digits that it may overflow is not sure.
func (s *skipper) digits() bool {
	start := s.at
	s.run()
	length := s.at - start
	return length > 0 && length < 300 && (length == 1 || s.doc[start] != '0')
}

func (s *skipper) run() {
	for s.at < len(s.doc) && '0' <= s.doc[s.at] && s.doc[s.at] <= '9' {
		s.at++
	}
}

// fraction skips what may follow an integer. An exponent is not sure.
func (s *skipper) fraction() bool {
	if s.at == len(s.doc) || s.doc[s.at] != '.' {
		return s.at == len(s.doc) || s.doc[s.at]|0x20 != 'e'
	}
	s.at++
	start := s.at
	s.run()
	return s.at > start && (s.at == len(s.doc) || s.doc[s.at]|0x20 != 'e')
}

// text skips a string whose quote was taken and returns what is between the
// quotes. Escapes by number are not sure, as are others than those of RFC 8259.
func (s *skipper) text() ([]byte, bool) {
	start, ascii := s.at, true
	for ; s.at < len(s.doc); s.at++ {
		switch c := s.doc[s.at]; {
		case c == '"':
			raw := s.doc[start:s.at]
			s.at++
			return raw, ascii || utf8.Valid(raw)
		case c == '\\':
			s.at++
			if s.at == len(s.doc) || bytes.IndexByte([]byte(`"\/bfnrt`), s.doc[s.at]) < 0 {
				return nil, false
			}
		case c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

func (s *skipper) array(depth int) bool {
	if s.space(); s.at < len(s.doc) && s.doc[s.at] == ']' {
		s.at++
		return true
	}
	for s.value(depth) {
		switch s.next() {
		case ',':
		case ']':
			return true
		default:
			return false
		}
	}
	return false
}

func (s *skipper) object(depth int) bool {
	if s.space(); s.at < len(s.doc) && s.doc[s.at] == '}' {
		s.at++
		return true
	}
	var names [maxSkippedMembers][]byte
	for n := range names {
		if s.next() != '"' {
			return false
		}
		name, ok := s.text()
		if !ok || bytes.IndexByte(name, '\\') >= 0 || contains(names[:n], name) || s.next() != ':' || !s.value(depth) {
			return false
		}
		names[n] = name
		switch s.next() {
		case ',':
		case '}':
			return true
		default:
			return false
		}
	}
	return false
}

func contains(names [][]byte, name []byte) bool {
	for _, other := range names {
		if bytes.Equal(other, name) {
			return true
		}
	}
	return false
}
