package mask

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// How values are looked for.
const (
	// MinRun is the length from which a piece of a longer value is masked.
	MinRun = 16

	minPart   = 4 // bytes from which a value is found inside of words
	minDigits = 6 // of a number from which it is found like a text

	minWord = 2 // bytes of a value that is found as a word of its own

	// Pieces of long values are found by windows of windowBytes, of which every
	// run of MinRun bytes has a whole one.
	windowBytes = 8
	stride      = MinRun - windowBytes + 1

	// maxWork bounds what is compared for one record, in bytes; beyond it nothing
	// passes.
	maxWork = 4 << 20
)

// A needle is a masked value.
type needle struct {
	folded string
	value  string // as the request has it, for the placeholder
	number bool
	by     *step
	text   string // the placeholder, once it was needed
}

// needles are the masked values of one request.
type needles struct {
	keys   *Keys
	budget int

	all     []*needle
	whole   map[string]*needle // by the value as it is
	numbers map[string]*needle // by canonical literal
	words   bool               // there are values of a word's length
	wide    bool               // there are values of more than ASCII
	heads   map[uint32][]*needle
	windows map[uint64][]anchor
	sealed  int // so many of all are in heads and windows
	filter  [64]uint64
}

// An anchor is a window's place in a value.
type anchor struct {
	of *needle
	at int
}

// add has a text looked for, also as escapes write it.
func (n *needles) add(s string, by *step) {
	if s == "" || n.keep(s, s, by) {
		return
	}
	if len(s) < minPart {
		return
	}
	for _, form := range escaped(s) {
		n.keep(form, s, by)
		if strings.IndexByte(form, '\\') < 0 {
			continue
		}
		for _, twice := range escaped(form) { // of JSON in a text, in JSON or in a URL
			n.keep(twice, s, by)
		}
	}
}

// keep reports whether the form was there already.
func (n *needles) keep(form, value string, by *step) bool {
	if have := n.whole[form]; have != nil {
		if strength(by.action) > strength(have.by.action) {
			have.by = by
		}
		return true
	}
	if n.whole == nil {
		n.whole = map[string]*needle{}
	}
	x := &needle{folded: fold(form), value: value, by: by}
	n.whole[form] = x
	n.all = append(n.all, x)
	n.words = n.words || len(form) < minPart
	n.wide = n.wide || strings.ContainsFunc(form, func(r rune) bool { return r >= utf8.RuneSelf })
	n.budget -= len(form)
	return false
}

// escaped are the forms other than s itself in which s stands in JSON and in URLs.
func escaped(s string) (forms []string) {
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return nil
	}
	take := func(form string) {
		if form != s && !slices.Contains(forms, form) {
			forms = append(forms, form)
		}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"\\<>&/", r) }) {
		if b, err := json.Marshal(s); err == nil {
			take(string(b[1 : len(b)-1]))
		}
		quoted := strconv.Quote(s)
		take(quoted[1 : len(quoted)-1])
		var out strings.Builder
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		if enc.Encode(s) == nil {
			plainly := strings.Trim(out.String(), "\n")[1 : out.Len()-2]
			ascii := asciiJSON(plainly) // as Python writes it
			take(plainly)
			take(ascii)
			take(strings.ReplaceAll(plainly, "/", `\/`))
			take(strings.ReplaceAll(ascii, "/", `\/`)) // as PHP does
		}
	}
	query := url.QueryEscape(s)
	take(query)
	take(url.PathEscape(s))
	query = strings.ReplaceAll(query, "+", "%20")
	take(query)
	if strings.ContainsAny(s, "!'()*") {
		take(strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(query)) // as JavaScript does
	}
	return forms
}

// asciiJSON escapes what is more than ASCII, beyond 16 bits in two halves.
func asciiJSON(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// plain reports whether r stands for itself in every form.
func plain(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '-' || r == '_' || r == '.'
}

// addNumber has a number looked for; true, false and null are not.
func (n *needles) addNumber(lit string, by *step) {
	canonical, ok := canonicalNumber(lit)
	if !ok || len(strings.TrimLeft(canonical, "-")) < 2 {
		return
	}
	if len(canonical) >= minDigits { // found inside of words too
		n.keep(canonical, canonical, by)
		n.keep(lit, canonical, by)
		n.whole[canonical].number, n.whole[lit].number = true, true
	}
	if have := n.numbers[canonical]; have != nil {
		if strength(by.action) > strength(have.by.action) {
			have.by = by
		}
		return
	}
	if n.numbers == nil {
		n.numbers = map[string]*needle{}
	}
	n.numbers[canonical] = &needle{value: canonical, number: true, by: by}
}

// canonicalNumber writes equal numbers alike.
func canonicalNumber(lit string) (string, bool) {
	if i, err := strconv.ParseInt(lit, 10, 64); err == nil {
		return strconv.FormatInt(i, 10), true
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return "", false
	}
	if i := int64(f); f > -1<<62 && f < 1<<62 && float64(i) == f {
		return strconv.FormatInt(i, 10), true
	}
	return strconv.FormatFloat(f, 'g', -1, 64), true
}

// placeholder is what stands for the needle.
func (n *needles) placeholder(x *needle) string {
	if x.text == "" {
		var v any = x.value
		if x.number {
			v = numberOf(x.value)
		}
		b, err := wire.Marshal(v)
		if err != nil { // no text and no number is one
			return Dropped
		}
		x.text = n.keys.placeholder(x.by.action, x.by.path, b)
	}
	return x.text
}

func numberOf(canonical string) any {
	if i, err := strconv.ParseInt(canonical, 10, 64); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(canonical, 64) // it was written by us
	return f
}

// fold makes letters small where that does not change their length.
func fold(s string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' || r >= utf8.RuneSelf })
	if at < 0 {
		return s
	}
	b := []byte(s)
	for i := at; i < len(b); {
		if b[i] < utf8.RuneSelf {
			if 'A' <= b[i] && b[i] <= 'Z' {
				b[i] += 'a' - 'A'
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if low := unicode.ToLower(r); low != r && utf8.RuneLen(low) == size {
			utf8.EncodeRune(b[i:], low)
		}
		i += size
	}
	return string(b)
}

// seal puts what was added into the indices.
func (n *needles) seal() {
	if n.sealed == len(n.all) {
		return
	}
	n.sealed = len(n.all)
	n.heads, n.windows, n.filter = map[uint32][]*needle{}, map[uint64][]anchor{}, [64]uint64{}
	for _, x := range n.all {
		if len(x.folded) < minPart {
			continue
		}
		h := head(x.folded, 0)
		n.heads[h] = append(n.heads[h], x)
		n.mark(h)
		if len(x.folded) < MinRun {
			continue
		}
		for at := 0; at+windowBytes <= len(x.folded); at += stride {
			w := window(x.folded, at)
			n.windows[w] = append(n.windows[w], anchor{x, at})
			n.mark(uint32(w))
		}
	}
	for _, list := range n.heads {
		slices.SortFunc(list, func(a, b *needle) int { return len(b.folded) - len(a.folded) })
	}
}

func head(s string, at int) uint32 {
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

func window(s string, at int) uint64 {
	return binary.LittleEndian.Uint64([]byte(s[at : at+windowBytes]))
}

// mark and marked are a small filter before the maps: by the first four bytes.
func (n *needles) mark(h uint32) {
	bit := h * 0x9e3779b1 >> 20
	n.filter[bit>>6] |= 1 << (bit & 63)
}

func (n *needles) marked(h uint32) bool {
	bit := h * 0x9e3779b1 >> 20
	return n.filter[bit>>6]&(1<<(bit&63)) != 0
}

// quiet reports whether nothing that is looked for can stand in JSON text, in no
// more than one look at each byte.
func (n *needles) quiet(raw []byte) bool {
	if n.words || len(n.numbers) > 0 {
		return false
	}
	n.seal()
	n.budget -= len(raw) / 4
	var h uint32
	for i, c := range raw {
		if c == '\\' || n.wide && c >= utf8.RuneSelf {
			return false
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if h = h>>8 | uint32(c)<<24; i >= minPart-1 && n.marked(h) {
			return false
		}
	}
	return true
}

// text returns s without what is looked for.
func (n *needles) text(s string) string {
	if n.budget < 0 {
		return Masked
	}
	if x := n.whole[s]; x != nil {
		return n.placeholder(x)
	}
	n.seal()
	c := cover{n: n, s: s}
	c.parts(fold(s))
	if n.words || len(n.numbers) > 0 {
		c.tokens()
	}
	if n.budget < 0 {
		return Masked
	}
	return c.apply()
}

// cover notes which bytes of a text are masked, and by what.
type cover struct {
	n    *needles
	s    string
	by   []*needle // of each byte; nil until there is one
	done int       // the bytes before this one that parts has come to are masked
}

func (c *cover) mark(from, to int, x *needle) {
	if c.by == nil {
		c.by = make([]*needle, len(c.s))
	}
	c.n.budget -= max(to-from, 0)
	for i := from; i < to; i++ {
		if c.by[i] == nil {
			c.by[i] = x
		}
	}
}

// parts finds values of minPart bytes and more, and pieces of long ones.
func (c *cover) parts(s string) {
	n := c.n
	n.budget -= len(s)
	for i := 0; i+minPart <= len(s) && n.budget >= 0; i++ {
		h := head(s, i)
		if !n.marked(h) {
			continue
		}
		for _, x := range n.heads[h] {
			k := min(len(x.folded), len(s)-i) // at the end a beginning is enough: who cuts texts must not uncover it
			n.budget -= 1 + k/16
			if s[i:i+k] == x.folded[:k] {
				c.cover(i, i+k, x)
				break
			}
		}
		if i+windowBytes <= len(s) && i+windowBytes > c.done {
			for _, a := range n.windows[window(s, i)] {
				c.run(s, i, a)
			}
		}
	}
}

// cover is mark for a stretch that begins where parts has come to: what is masked
// from there on already costs nothing.
func (c *cover) cover(from, to int, x *needle) {
	c.mark(max(from, c.done), to, x)
	c.done = max(c.done, to)
}

// run masks the longest piece around a window that text and value have in common.
func (c *cover) run(s string, at int, a anchor) {
	v := a.of.folded
	from, to := 0, windowBytes
	for at+from > 0 && a.at+from > 0 && s[at+from-1] == v[a.at+from-1] {
		from--
	}
	for at+to < len(s) && a.at+to < len(v) && s[at+to] == v[a.at+to] {
		to++
	}
	c.n.budget -= to - from
	if to-from >= MinRun {
		c.mark(at+from, at, a.of)
		c.cover(at, at+to, a.of)
	}
}

// tokens finds short words and whole numbers.
func (c *cover) tokens() {
	for i := 0; i < len(c.s); {
		if !wordByte(c.s[i]) {
			i++
			continue
		}
		end := i
		for end < len(c.s) && wordByte(c.s[end]) {
			end++
		}
		c.n.budget -= end - i
		if x := c.n.whole[c.s[i:end]]; x != nil && end-i >= minWord && end-i < minPart {
			c.mark(i, end, x)
		}
		if digit(c.s[i]) {
			end = max(end, c.number(i))
		}
		i = end
	}
}

// number masks the number that begins at s[at], and returns its end.
func (c *cover) number(at int) int {
	end := digits(c.s, at)
	if end+1 < len(c.s) && c.s[end] == '.' && digit(c.s[end+1]) {
		end = digits(c.s, end+1)
	}
	if e := end; e < len(c.s) && c.s[e]|0x20 == 'e' {
		if e++; e < len(c.s) && (c.s[e] == '-' || c.s[e] == '+') {
			e++
		}
		if e < len(c.s) && digit(c.s[e]) {
			end = digits(c.s, e)
		}
	}
	if end < len(c.s) && wordByte(c.s[end]) {
		return at // a word that begins with digits
	}
	canonical, ok := canonicalNumber(c.s[at:end])
	if !ok {
		return end
	}
	x := c.n.numbers[canonical]
	if x == nil {
		x = c.n.numbers["-"+canonical]
	}
	if x != nil {
		c.mark(at, end, x)
	}
	return end
}

func digits(s string, at int) int {
	for at < len(s) && digit(s[at]) {
		at++
	}
	return at
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func wordByte(c byte) bool {
	return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80
}

// apply writes the text with a placeholder for every masked stretch.
func (c *cover) apply() string {
	if c.by == nil {
		return c.s
	}
	var out strings.Builder
	for i := 0; i < len(c.s); {
		x, from := c.by[i], i
		for i < len(c.s) && (c.by[i] == nil) == (x == nil) {
			i++
		}
		if x == nil {
			out.WriteString(strings.ToValidUTF8(c.s[from:i], ""))
		} else {
			out.WriteString(c.n.placeholder(x))
		}
	}
	return out.String()
}

// number returns what stands for a number's literal, and whether it is masked.
func (n *needles) number(lit string) (string, bool) {
	if canonical, ok := canonicalNumber(lit); ok {
		if x := n.numbers[canonical]; x != nil {
			return n.placeholder(x), true
		}
	}
	masked := n.text(lit)
	return masked, masked != lit
}

// value returns v without what is looked for, v itself if there is none in it.
func (n *needles) value(v any) any {
	switch v := v.(type) {
	case nil, bool:
		return v
	case string:
		return n.text(v)
	case int64:
		if masked, is := n.number(strconv.FormatInt(v, 10)); is {
			return masked
		}
		return v
	case float64:
		if masked, is := n.number(strconv.FormatFloat(v, 'f', -1, 64)); is {
			return masked
		}
		return v
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = n.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			masked := n.text(name)
			for _, twice := out[masked]; twice; _, twice = out[masked] {
				masked += "+"
			}
			out[masked] = n.value(v[name])
		}
		return out
	}
	return Masked // no policy value is one
}
