package main

import (
	"errors"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

// rules are the module's parameters.
type rules struct {
	maxString int      // bytes of one string
	maxDepth  int      // levels of lists and maps within the arguments
	maxItems  int      // items of one list, members of one map
	text      []string // members of the context that hold text beside the arguments
	forbidden []string // lower case, not empty
	// first marks the bytes that a forbidden substring begins with.
	first [256]bool
}

func defaults() rules {
	return rules{maxString: 4096, maxDepth: 8, maxItems: 256, text: []string{"user"}}
}

// parseRules reads the parameters; one that is unknown or of the wrong type is
// an error, so that a slip of the pen loads nothing instead of guarding nothing.
func parseRules(params guest.Value) (rules, error) {
	r := defaults()
	for name, v := range params.Members() {
		var ok bool
		switch name {
		case "max_string":
			r.maxString, ok = positive(v)
		case "max_depth":
			r.maxDepth, ok = positive(v)
		case "max_items":
			r.maxItems, ok = positive(v)
		case "text":
			r.text, ok = texts(v)
		case "forbidden":
			r.forbidden, ok = texts(v)
		}
		if !ok {
			return rules{}, errors.New("argument-guard: parameter " + name + " is unknown or of the wrong type")
		}
	}
	for i, f := range r.forbidden {
		r.forbidden[i] = lower(f)
		r.first[r.forbidden[i][0]] = true
	}
	return r, nil
}

func positive(v guest.Value) (int, bool) {
	n := v.Int()
	return int(n), n > 0 && n <= 1<<20
}

// texts copies a list of strings that are not empty.
func texts(v guest.Value) ([]string, bool) {
	list := make([]string, 0, v.Len())
	for _, item := range v.Items() {
		if item.Text() == "" {
			return nil, false
		}
		list = append(list, string([]byte(item.Text())))
	}
	return list, v.Kind() == guest.List
}

func lower(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = fold(b[i])
	}
	return string(b)
}

// fold lowers ASCII letters and leaves other bytes alone.
func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
