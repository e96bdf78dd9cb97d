package wasm

import "unicode/utf8"

// reader reads a range of a module. After the first error every method returns
// zero and leaves the error in err; loops over counts must look at it.
type reader struct {
	data []byte
	pos  int
	end  int
	at   int // where the item read last begins, for refusals
	err  error
}

func (r *reader) refuse(item, reason string) {
	if r.err == nil {
		r.err = &Refusal{Offset: r.at, Item: item, Reason: reason}
	}
}

// within refuses value when it is above limit and tells whether reading may go on.
func (r *reader) within(item string, value uint64, limit int) bool {
	if r.err == nil && value > uint64(limit) {
		r.err = &Refusal{Offset: r.at, Item: item, Value: value, Limit: uint64(limit), Reason: "too many"}
	}
	return r.err == nil
}

func (r *reader) more() bool { return r.err == nil && r.pos < r.end }

func (r *reader) byte(item string) byte {
	r.at = r.pos
	return r.next8(item)
}

// next8 reads a byte of an item that began at r.at.
func (r *reader) next8(item string) byte {
	if r.err != nil || r.pos >= r.end {
		r.refuse(item, "truncated")
		return 0
	}
	r.pos++
	return r.data[r.pos-1]
}

func (r *reader) bytes(item string, n uint32) []byte {
	r.at = r.pos
	if r.err != nil || uint64(n) > uint64(r.end-r.pos) {
		r.refuse(item, "truncated")
		return nil
	}
	r.pos += int(n)
	return r.data[r.pos-int(n) : r.pos : r.pos]
}

// section returns a reader of the next n bytes and skips them.
func (r *reader) section(item string, n uint32) *reader {
	start := r.pos
	if r.bytes(item, n) == nil && r.err != nil {
		return &reader{err: r.err}
	}
	return &reader{data: r.data, pos: start, end: r.pos, at: start}
}

func (r *reader) u32(item string) uint32 { return uint32(r.unsigned(item, 32)) }

// unsigned reads an unsigned LEB128 of at most bits bits in at most ceil(bits/7) bytes.
func (r *reader) unsigned(item string, bits uint) uint64 {
	r.at = r.pos
	var value uint64
	for shift := uint(0); shift < bits; shift += 7 {
		b := r.next8(item)
		if r.err != nil {
			return 0
		}
		if rest := bits - shift; rest < 7 && b>>rest != 0 {
			break
		}
		value |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return value
		}
	}
	r.refuse(item, "integer too long")
	return 0
}

// signed reads a signed LEB128 of at most bits bits in at most ceil(bits/7) bytes.
func (r *reader) signed(item string, bits uint) int64 {
	r.at = r.pos
	var value int64
	for shift := uint(0); shift < bits; shift += 7 {
		b := r.next8(item)
		if r.err != nil {
			return 0
		}
		if rest := bits - shift; rest < 7 && !signFills(b, rest) {
			break
		}
		value |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if shift+7 < 64 && b&0x40 != 0 {
				value |= -1 << (shift + 7)
			}
			return value
		}
	}
	r.refuse(item, "integer too long")
	return 0
}

// signFills tells whether the last byte of a signed integer, of which rest bits
// count, ends the integer and repeats the sign in the others.
func signFills(b byte, rest uint) bool {
	above := b >> (rest - 1)
	return above == 0 || above == 0x7f>>(rest-1)
}

// count reads the length of a vector whose elements take at least one byte each.
func (r *reader) count(item string, limit int) int {
	n := r.u32(item)
	if !r.within(item, uint64(n), limit) {
		return 0
	}
	if uint64(n) > uint64(r.end-r.pos) {
		r.refuse(item, "more elements than bytes")
		return 0
	}
	return int(n)
}

func (r *reader) name(item string, limit uint32) string {
	n := r.u32(item)
	if !r.within(item, uint64(n), int(limit)) {
		return ""
	}
	raw := r.bytes(item, n)
	if !utf8.Valid(raw) {
		r.refuse(item, "not UTF-8")
	}
	return string(raw)
}
