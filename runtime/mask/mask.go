// Package mask keeps what a release names out of what is recorded: members of a
// request are dropped, hashed or tokenised, and their values are looked for in
// everything else that a record says. It is pure: no clock, disk or network.
//
// A value is found again whatever the case of its letters, in JSON or URL escapes
// and one in the other, cut off at the end of a text, and, of a long one, in pieces
// of at least MinRun bytes. Of a string of 2 or 3 bytes only whole words are found,
// of a number of 2 to 5 digits only whole numbers. What a policy turns into
// something else (base64, digests, single letters) is not found.
package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/runtime/rawjson"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What stands in the place of a value. A hash is HashPrefix and 32 hexadecimal
// digits, a token TokenPrefix and as many.
const (
	Dropped     = "[dropped]"
	Masked      = "[masked]" // of all, when the masks could not be applied
	HashPrefix  = "hmac:"
	TokenPrefix = "tok_"
)

// maxDepth bounds the nesting of a request; parsed ones have less.
const maxDepth = policy.MaxDepth + 8

// Rules are the masks of a decision point. They are immutable; nil masks nothing.
type Rules struct{ root step }

// A step is where a path may go on. "*" goes to every element or member.
type step struct {
	action string // of the path that ends here; "" for none
	path   string
	next   map[string]*step
}

// Compile prepares masks that passed the release's own checks; none give nil.
func Compile(masks []bundle.Mask) *Rules {
	if len(masks) == 0 {
		return nil
	}
	r := &Rules{}
	for _, m := range masks {
		at := &r.root
		for name := range strings.SplitSeq(strings.TrimPrefix(m.Path, "/"), "/") {
			name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
			if at.next == nil {
				at.next = map[string]*step{}
			}
			if at.next[name] == nil {
				at.next[name] = &step{}
			}
			at = at.next[name]
		}
		if strength(m.Action) > strength(at.action) {
			at.action, at.path = m.Action, m.Path
		}
	}
	return r
}

// strength orders actions: the stronger one counts where two masks meet.
func strength(action string) int {
	switch action {
	case "":
		return 0
	case bundle.MaskHash:
		return 1
	case bundle.MaskTokenise:
		return 2
	}
	return 3 // drop, and whatever is not known
}

// Keys are what hashes and tokens are made with.
type Keys struct{ hash, token []byte }

// NewKeys derives the keys from a tenant's secret.
func NewKeys(secret []byte) *Keys {
	return &Keys{derive(secret, "holdfast mask hash v1"), derive(secret, "holdfast mask token v1")}
}

func derive(secret []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// String keeps the keys out of whatever prints them.
func (*Keys) String() string { return "mask keys" }

// GoString is String.
func (k *Keys) GoString() string { return k.String() }

// placeholder is what stands for a value, given as its deterministic CBOR. The
// same value has the same hash everywhere, and the same token under one path.
func (k *Keys) placeholder(action, path string, value []byte) string {
	switch action {
	case bundle.MaskHash:
		return HashPrefix + sum(k.hash, "", value)
	case bundle.MaskTokenise:
		return TokenPrefix + sum(k.token, path, value)
	}
	return Dropped
}

func sum(key []byte, path string, value []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(path))
	mac.Write([]byte{0})
	mac.Write(value)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// A Redaction is a request without what is masked, and what it takes to keep the
// masked values out of everything else. It is for one goroutine. nil leaves
// everything as it is.
type Redaction struct {
	request []byte
	masked  bool
	blind   bool // nothing may pass: the masks could not be applied
	found   needles
}

// Apply masks a request's JSON. When it cannot, the redaction is that of Blind.
func (r *Rules) Apply(k *Keys, request []byte) *Redaction {
	if r == nil {
		return nil
	}
	w := walk{keys: k, doc: request}
	red := &Redaction{found: needles{keys: k, budget: maxWork}}
	w.found = &red.found
	at := rawjson.Space(request, 0)
	start := []*step{&r.root}
	if at == len(request) || request[at] != '{' || w.collect(at, start, 0) == rawjson.Bad {
		return Blind()
	}
	if !w.any {
		red.request = request
		return red
	}
	red.masked = true
	w.out = make([]byte, 0, len(request)+256)
	if w.emit(at, start, 0) == rawjson.Bad || red.found.budget < 0 {
		return Blind()
	}
	red.request = w.out
	return red
}

// Blind is the redaction that lets nothing pass.
func Blind() *Redaction { return &Redaction{masked: true, blind: true} }

// Request is the masked JSON; nil when there is none to be kept.
func (r *Redaction) Request() []byte { return r.request }

// Masked reports whether the record is not of what was decided on.
func (r *Redaction) Masked() bool { return r != nil && r.masked }

// Text returns s without masked values.
func (r *Redaction) Text(s string) string {
	switch {
	case r == nil || !r.masked || s == "":
		return s
	case r.blind:
		return Masked
	}
	return r.found.text(s)
}

// Value returns a policy value without masked values, in names as well; v itself
// when there are none in it.
func (r *Redaction) Value(v any) any {
	switch {
	case r == nil || !r.masked || v == nil:
		return v
	case r.blind:
		return Masked
	}
	return r.found.value(v)
}

// Members is Value for the properties of an obligation.
func (r *Redaction) Members(m map[string]any) map[string]any {
	if r == nil || !r.masked || len(m) == 0 {
		return m
	}
	if out, ok := r.Value(m).(map[string]any); ok {
		return out
	}
	return nil
}

// walk goes through a request's JSON twice: to find what is masked, then to write
// what is left.
type walk struct {
	keys  *Keys
	doc   []byte
	found *needles
	any   bool
	out   []byte
}

// collect follows the paths and notes the values where they end.
func (w *walk) collect(at int, steps []*step, depth int) int {
	if last := strongest(steps); last != nil {
		w.any = true
		return w.note(at, last, depth)
	}
	if depth > maxDepth || at >= len(w.doc) {
		return rawjson.Bad
	}
	if len(steps) == 0 || w.doc[at] != '{' && w.doc[at] != '[' {
		return rawjson.Skip(w.doc, at)
	}
	return rawjson.Each(w.doc, at, func(name []byte, index, from int) int {
		below, ok := follow(steps, name, index)
		if !ok {
			return rawjson.Bad
		}
		return w.collect(from, below, depth+1)
	})
}

// strongest is the step whose action counts here; nil for none.
func strongest(steps []*step) (last *step) {
	for _, s := range steps {
		if s.action != "" && (last == nil || strength(s.action) > strength(last.action)) {
			last = s
		}
	}
	return last
}

// follow returns the steps behind a member or element.
func follow(steps []*step, name []byte, index int) (below []*step, ok bool) {
	if len(steps) == 0 {
		return nil, true
	}
	text := ""
	if name == nil {
		text = strconv.Itoa(index)
	} else if text, ok = rawjson.Unquote(name); !ok {
		return nil, false
	}
	for _, s := range steps {
		if next := s.next[text]; next != nil {
			below = append(below, next)
		}
		if next := s.next["*"]; next != nil && text != "*" {
			below = append(below, next)
		}
	}
	return below, true
}

// note has everything in a masked value looked for: its texts, numbers and names.
func (w *walk) note(at int, by *step, depth int) int {
	if depth > maxDepth || at >= len(w.doc) {
		return rawjson.Bad
	}
	switch w.doc[at] {
	case '{', '[':
		return rawjson.Each(w.doc, at, func(name []byte, _, from int) int {
			if name != nil {
				s, ok := rawjson.Unquote(name)
				if !ok {
					return rawjson.Bad
				}
				w.found.add(s, by)
			}
			return w.note(from, by, depth+1)
		})
	case '"':
		end := rawjson.Skip(w.doc, at)
		if end == rawjson.Bad {
			return end
		}
		s, ok := rawjson.Unquote(w.doc[at+1 : end-1])
		if !ok {
			return rawjson.Bad
		}
		w.found.add(s, by)
		return end
	}
	end := rawjson.Skip(w.doc, at)
	if end != rawjson.Bad {
		w.found.addNumber(string(w.doc[at:end]), by)
	}
	return end
}

// emit writes the value at doc[at] as it is recorded.
func (w *walk) emit(at int, steps []*step, depth int) int {
	if depth > maxDepth || at >= len(w.doc) {
		return rawjson.Bad
	}
	if last := strongest(steps); last != nil {
		return w.replace(at, last)
	}
	end := rawjson.Skip(w.doc, at)
	if end == rawjson.Bad {
		return end
	}
	if len(steps) == 0 && w.found.quiet(w.doc[at:end]) {
		w.out = append(w.out, w.doc[at:end]...)
		return end
	}
	switch w.doc[at] {
	case '{', '[':
		return w.nested(at, steps, depth)
	case '"':
		return w.string(at)
	}
	lit := string(w.doc[at:end])
	if masked, is := w.found.number(lit); is {
		w.quote(masked)
	} else {
		w.out = append(w.out, lit...)
	}
	return end
}

// nested writes an object without the members that are dropped, or a list with
// null in their places.
func (w *walk) nested(at int, steps []*step, depth int) int {
	w.out = append(w.out, w.doc[at])
	first := true
	var names map[string]bool // of the object, once one of them is masked
	end := rawjson.Each(w.doc, at, func(name []byte, index, from int) int {
		below, ok := follow(steps, name, index)
		if !ok {
			return rawjson.Bad
		}
		last := strongest(below)
		drop := last != nil && strength(last.action) > strength(bundle.MaskTokenise)
		if drop && name != nil {
			return rawjson.Skip(w.doc, from)
		}
		if !first {
			w.out = append(w.out, ',')
		}
		first = false
		if name != nil && !w.name(name, at, steps, depth, &names) {
			return rawjson.Bad
		}
		if depth == 0 && bytes.Equal(name, []byte("point")) { // the release's own word
			end := rawjson.Skip(w.doc, from)
			if end != rawjson.Bad {
				w.out = append(w.out, w.doc[from:end]...)
			}
			return end
		}
		return w.emit(from, below, depth+1)
	})
	if end != rawjson.Bad {
		w.out = append(w.out, w.doc[end-1])
	}
	return end
}

// name writes a name of the object at doc[at]: without masked values, but for the
// names of a request itself and those that a path spells, which are the release's
// own words. Names that come out alike stay apart.
func (w *walk) name(raw []byte, at int, steps []*step, depth int, names *map[string]bool) bool {
	s, ok := rawjson.Unquote(raw)
	if !ok {
		return false
	}
	masked := s
	if depth > 0 && !spelt(steps, s) && !(depth == 1 && slices.Contains(entityNames[:], s)) {
		masked = w.found.text(s)
	}
	if masked == s {
		w.out = append(append(append(w.out, '"'), raw...), '"', ':')
		return true
	}
	if *names == nil {
		*names = map[string]bool{}
		rawjson.Each(w.doc, at, func(name []byte, _, from int) int {
			s, _ := rawjson.Unquote(name)
			(*names)[s] = true
			return rawjson.Skip(w.doc, from)
		})
	}
	for (*names)[masked] {
		masked += "+"
	}
	(*names)[masked] = true
	w.quote(masked)
	w.out = append(w.out, ':')
	return true
}

// entityNames are the members of subject, action and resource.
var entityNames = [...]string{"type", "id", "name", "properties"}

// spelt reports whether a path goes on by that name.
func spelt(steps []*step, name string) bool {
	return slices.ContainsFunc(steps, func(s *step) bool { return s.next[name] != nil })
}

// replace writes what stands for the value at doc[at].
func (w *walk) replace(at int, by *step) int {
	end := rawjson.Skip(w.doc, at)
	if end == rawjson.Bad {
		return end
	}
	if strength(by.action) > strength(bundle.MaskTokenise) {
		w.out = append(w.out, "null"...)
		return end
	}
	value, err := policy.ParseValue(w.doc[at:end])
	if err != nil {
		return rawjson.Bad
	}
	canonical, err := wire.Marshal(value)
	if err != nil {
		return rawjson.Bad
	}
	w.quote(w.keys.placeholder(by.action, by.path, canonical))
	return end
}

func (w *walk) string(at int) int {
	end := rawjson.Skip(w.doc, at)
	if end == rawjson.Bad {
		return end
	}
	s, ok := rawjson.Unquote(w.doc[at+1 : end-1])
	if !ok {
		return rawjson.Bad
	}
	if masked := w.found.text(s); masked != s {
		w.quote(masked)
	} else {
		w.out = append(w.out, w.doc[at:end]...)
	}
	return end
}

func (w *walk) quote(s string) {
	b, err := json.Marshal(s)
	if err != nil { // no string is one
		b = []byte(`""`)
	}
	w.out = append(w.out, b...)
}
