// Package wire is how Holdfast's values become bytes: deterministic CBOR
// (RFC 8949, section 4.2.1), SHA-256 digests and bounded Zstandard frames. It
// is the only importer of the CBOR and Zstandard libraries. schema.cddl beside
// this file describes every document that crosses a process (RFC 8610).
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// MaxDepth bounds the nesting of any document that is read, MaxGuestDepth that
// of what a guest wrote and a record takes in.
const (
	MaxDepth      = 40
	MaxGuestDepth = 32
)

// ErrNotDeterministic is returned for CBOR which decodes but is not the one
// encoding that Marshal would have written.
var ErrNotDeterministic = errors.New("not deterministic CBOR (RFC 8949, 4.2.1)")

// ErrTooLarge is returned for a frame that would decompress beyond its bound.
var ErrTooLarge = errors.New("decompresses beyond the stated size")

// modes holds the codec's settings; they are immutable once built.
var modes = sync.OnceValue(func() (m struct {
	enc cbor.EncMode
	dec cbor.DecMode
	// loose reads what guests write. It allows fewer levels, so that what it
	// accepts can stand inside a record.
	loose cbor.DecMode
}) {
	enc := cbor.CoreDetEncOptions()
	enc.TextMarshaler = cbor.TextMarshalerTextString
	enc.TagsMd = cbor.TagsForbidden
	enc.NaNConvert = cbor.NaNConvertReject
	enc.InfConvert = cbor.InfConvertReject
	enc.NilContainers = cbor.NilContainerAsEmpty
	enc.OmitEmpty = cbor.OmitEmptyCBORValue
	dec := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   MaxDepth,
		MaxArrayElements:  1 << 20,
		MaxMapPairs:       1 << 20,
		IntDec:            cbor.IntDecConvertSignedOrFail,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		DefaultMapType:    reflect.TypeFor[map[string]any](),
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		TextUnmarshaler:   cbor.TextUnmarshalerTextString,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
	}
	var err error
	if m.enc, err = enc.EncMode(); err != nil {
		panic(err) // our own constant options
	}
	if m.dec, err = dec.DecMode(); err != nil {
		panic(err)
	}
	dec.MaxNestedLevels = MaxGuestDepth
	if m.loose, err = dec.DecMode(); err != nil {
		panic(err)
	}
	return m
})

// Marshal returns the deterministic encoding of v: shortest integers and
// floats, sorted keys, definite lengths, no tags, no NaN, no infinity.
func Marshal(v any) ([]byte, error) { return modes().enc.Marshal(v) }

// Unmarshal reads one document into v and accepts nothing but what Marshal
// would write for the value: it decodes, encodes again and compares. Unknown
// fields, duplicate keys, tags, indefinite lengths and trailing bytes are
// errors. The input is never kept.
func Unmarshal(data []byte, v any) error {
	if err := modes().dec.Unmarshal(data, v); err != nil {
		return err
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return ErrNotDeterministic
	}
	return nil
}

// UnmarshalLoose reads one document that a guest wrote: any order of keys and
// any length of integers, at most MaxGuestDepth levels, and the other bounds of
// Unmarshal.
func UnmarshalLoose(data []byte, v any) error { return modes().loose.Unmarshal(data, v) }

// RawMessage is an encoded document inside another one.
type RawMessage = cbor.RawMessage

// zstd coders are safe for concurrent use by their EncodeAll and DecodeAll.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		panic(err) // our own constant options
	}
	return e
})

// Compress returns data as one Zstandard frame that carries its size. The same
// data gives the same frame in one build of Holdfast; digests are therefore
// always taken over the uncompressed bytes.
func Compress(data []byte) []byte { return encoder().EncodeAll(data, nil) }

// minWindow is the smallest window that RFC 8878 lets a frame ask for, with room.
const minWindow = 64 << 10

// ErrFrame is returned for what is not exactly one Zstandard frame as Compress
// writes it: a skippable one, one that wants a dictionary, more behind the first.
var ErrFrame = errors.New("not one Zstandard frame")

// Decompress returns the content of exactly one frame, which must be at most max
// bytes long, or ErrTooLarge. Memory stays in proportion to max.
func Decompress(frame []byte, max int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, fmt.Errorf("zstd header: %w", err)
	}
	if err := oneFrame(frame, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if h.HasFCS && h.FrameContentSize > uint64(max) {
		return nil, fmt.Errorf("frame of %d bytes, bound %d: %w", h.FrameContentSize, max, ErrTooLarge)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max)+minWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	out, err := d.DecodeAll(frame, nil)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded), len(out) > max:
		return nil, fmt.Errorf("bound %d: %w", max, ErrTooLarge)
	case err != nil:
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return out, nil
}

// oneFrame follows the frame's blocks by their headers (RFC 8878, 3.1.1.2) and
// returns an error unless the first frame has content and ends where the bytes do.
func oneFrame(frame []byte, h *zstd.Header) error {
	switch {
	case h.Skippable:
		return errors.New("a skippable frame")
	case h.DictionaryID != 0:
		return fmt.Errorf("it wants dictionary %d", h.DictionaryID)
	}
	const rle = 1
	at := h.HeaderSize
	for last := false; !last; {
		if at+3 > len(frame) {
			return errors.New("cut off")
		}
		header := uint32(frame[at]) | uint32(frame[at+1])<<8 | uint32(frame[at+2])<<16
		last = header&1 != 0
		size := int(header >> 3)
		if header>>1&3 == rle {
			size = 1
		}
		at += 3 + size
	}
	if h.HasCheckSum {
		at += 4
	}
	switch {
	case at > len(frame):
		return errors.New("cut off")
	case at < len(frame):
		return fmt.Errorf("%d bytes behind its end", len(frame)-at)
	}
	return nil
}
