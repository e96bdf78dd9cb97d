package guest

import "strings"

// EqualFold reports whether a and b are equal when ASCII letters of either case
// are the same. Other bytes must be equal: what case a letter of another alphabet
// has depends on the version of Unicode, and languages disagree.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

// Lower returns a copy of s with its ASCII letters in lower case.
func Lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Decimal writes a number in decimal.
func Decimal(n int64) string {
	var b [20]byte
	i, u := len(b), uint64(n)
	if n < 0 {
		u = -u
	}
	for {
		i--
		b[i] = byte('0' + u%10)
		if u /= 10; u == 0 {
			break
		}
	}
	if n < 0 {
		i--
		b[i] = '-'
	}
	return string(b[i:])
}

// CopyText is Text, copied: for what Configure keeps.
func (v Value) CopyText() string { return strings.Clone(v.Text()) }

// Copy returns the value on memory of its own: for what Configure keeps.
func (v Value) Copy() Value { return Value{append([]byte(nil), v.doc...)} }

// Whole returns an integer from 0. It reports false for a negative one, and for
// 2.0, which is a float.
func (v Value) Whole() (int64, bool) {
	n := v.Int()
	return n, v.Kind() == Int && n >= 0
}

// CopyTexts returns a copy of a list of strings. It reports false when the value
// is no list, or one of its items no string.
func (v Value) CopyTexts() ([]string, bool) {
	if v.Kind() != List {
		return nil, false
	}
	texts := make([]string, 0, v.Len())
	for _, item := range v.Items() {
		if item.Kind() != String {
			return nil, false
		}
		texts = append(texts, item.CopyText())
	}
	return texts, true
}

// Contains reports whether a list has the string.
func (v Value) Contains(text string) bool {
	for _, item := range v.Items() {
		if item.Kind() == String && item.Text() == text {
			return true
		}
	}
	return false
}
