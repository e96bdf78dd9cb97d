// Package rawjson finds where values begin and end in JSON text that was checked
// before, without making values of it. On other text it stops with an error mark
// and never reads beyond it.
package rawjson

import (
	"bytes"
	"encoding/json"
)

// Bad is returned in the place of an offset for text that is not JSON.
const Bad = -1

// Space returns the first offset from at on that is not white space.
func Space(doc []byte, at int) int {
	for at < len(doc) && (doc[at] == ' ' || doc[at] == '\n' || doc[at] == '\t' || doc[at] == '\r') {
		at++
	}
	return at
}

// Skip returns the end of the value that begins at doc[at], or Bad.
func Skip(doc []byte, at int) int {
	if at < 0 || at >= len(doc) {
		return Bad
	}
	switch doc[at] {
	case '"':
		return text(doc, at)
	case '{', '[':
		return nested(doc, at)
	}
	end := at
	for end < len(doc) && scalar(doc[end]) {
		end++
	}
	if end == at {
		return Bad
	}
	return end
}

// scalar reports whether c can be of a number, true, false or null.
func scalar(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

// text returns the end of the string that begins at doc[at].
func text(doc []byte, at int) int {
	for at++; at < len(doc); at++ {
		n := bytes.IndexByte(doc[at:], '"')
		if n < 0 {
			return Bad
		}
		e := bytes.IndexByte(doc[at:at+n], '\\')
		if e < 0 {
			return at + n + 1
		}
		at += e + 1 // what is escaped is passed by the loop
	}
	return Bad
}

func nested(doc []byte, at int) int {
	for depth := 0; at < len(doc); at++ {
		switch doc[at] {
		case '"':
			if at = text(doc, at); at == Bad {
				return Bad
			}
			at--
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
	}
	return Bad
}

// Each calls visit for every member of the object, or element of the list, that
// begins at doc[at], and returns its end or Bad. name is a member's name as it
// stands between its quotes, nil for an element; index counts from 0, and from is
// where the value begins. visit returns the value's end, or Bad, which ends it.
func Each(doc []byte, at int, visit func(name []byte, index, from int) (to int)) (end int) {
	if at < 0 || at >= len(doc) || doc[at] != '{' && doc[at] != '[' {
		return Bad
	}
	object := doc[at] == '{'
	closing := doc[at] + 2 // of both, in ASCII
	if at = Space(doc, at+1); at < len(doc) && doc[at] == closing {
		return at + 1
	}
	for index := 0; at < len(doc); index++ {
		var name []byte
		if object {
			if doc[at] != '"' {
				return Bad
			}
			after := text(doc, at)
			if after == Bad {
				return Bad
			}
			name = doc[at+1 : after-1 : after-1]
			if at = Space(doc, after); at >= len(doc) || doc[at] != ':' {
				return Bad
			}
			at = Space(doc, at+1)
		}
		if at = visit(name, index, at); at == Bad {
			return Bad
		}
		at = Space(doc, at)
		switch {
		case at >= len(doc):
			return Bad
		case doc[at] == closing:
			return at + 1
		case doc[at] != ',':
			return Bad
		}
		at = Space(doc, at+1)
	}
	return Bad
}

// Unquote returns the string whose text stands between quotes as raw.
func Unquote(raw []byte) (s string, ok bool) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), true
	}
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	return s, json.Unmarshal(quoted, &s) == nil
}
