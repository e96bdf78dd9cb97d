package wire_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

type level uint8

func (l level) MarshalText() ([]byte, error) {
	if l > 2 {
		return nil, fmt.Errorf("no level %d", l)
	}
	return []byte([]string{"low", "mid", "high"}[l]), nil
}

func (l *level) UnmarshalText(b []byte) error {
	for n := range level(3) {
		if text, _ := n.MarshalText(); string(text) == string(b) {
			*l = n
			return nil
		}
	}
	return fmt.Errorf("level %q", b)
}

type inner struct {
	Digest wire.Digest `cbor:"1,keyasint"`
	Size   uint64      `cbor:"2,keyasint,omitempty"`
}

type entity struct {
	Type string `cbor:"1,keyasint,omitempty"`
	ID   string `cbor:"2,keyasint,omitempty"`
}

type shaped struct {
	Seq   uint64         `cbor:"1,keyasint"`
	Small uint8          `cbor:"2,keyasint,omitempty"`
	Time  int64          `cbor:"3,keyasint"`
	Level level          `cbor:"4,keyasint"`
	One   *inner         `cbor:"5,keyasint,omitempty"`
	Other entity         `cbor:"6,keyasint,omitempty"`
	List  []inner        `cbor:"7,keyasint,omitempty"`
	Root  [32]byte       `cbor:"30,keyasint"`
	Bytes []byte         `cbor:"31,keyasint,omitempty"`
	Yes   bool           `cbor:"32,keyasint,omitempty"`
	Score float64        `cbor:"33,keyasint,omitempty"`
	Name  string         `cbor:"name"`
	Any   map[string]any `cbor:"any,omitempty"`
	Rare  uint64         `cbor:"rare,omitempty" shape:"seldom"`
}

func examples() []shaped {
	d := wire.Sum([]byte("x"))
	return []shaped{
		{},
		{Seq: 1, Small: 200, Time: -5, Level: 2, Name: "é", Yes: true, Bytes: []byte{0}},
		{Seq: 1 << 40, Time: 1 << 62, One: &inner{d, 3}, Other: entity{ID: "i"}, List: []inner{{d, 24}, {d, 256}, {d, 1 << 16}, {d, 1 << 32}},
			Any: map[string]any{"a": int64(-1), "bb": []any{nil, true, "s", []byte{1}, 0.1, map[string]any{}}, "b": 1e300}},
		{Score: 0.5, Any: map[string]any{"half": 0.5, "minus zero": math.Copysign(0, -1), "small": 0x1p-24, "least normal": 0x1p-14, "single": 0x1.004p0 + 0x1p-12, "large": 65504.0, "larger": 65536.0}},
		{Score: 0x1p-25, Any: map[string]any{"a": 0x1p-30, "b": 0x1.8p-24, "c": 0x1p-16}},
	}
}

var shape = wire.NewShape[shaped, inner]()

func TestShapeKnowsWhatMarshalWrites(t *testing.T) {
	for i, in := range examples() {
		doc, err := wire.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		found, ok := shape.Check(doc, nil)
		if !ok {
			t.Fatalf("%d: refused: %x", i, doc)
		}
		var out shaped
		if err := shape.Unmarshal(doc, &out); err != nil {
			t.Fatal(err)
		}
		if i == 2 && len(found) != 5 {
			t.Fatalf("%d values of the watched type: %x", len(found), found)
		}
		for n, f := range found {
			var v inner
			if err := wire.Unmarshal(f, &v); err != nil {
				t.Fatalf("%d, %d: %v", i, n, err)
			}
		}
	}
}

func TestShapeLeavesWhatIsSeldom(t *testing.T) {
	doc, err := wire.Marshal(shaped{Rare: 1})
	if err != nil {
		t.Fatal(err)
	}
	var v shaped
	if _, ok := shape.Check(doc, nil); ok || shape.Unmarshal(doc, &v) != nil || v.Rare != 1 {
		t.Errorf("accepted: %t, %+v", ok, v)
	}
}

// Every changed byte and every cut of a document is refused or is what Unmarshal
// accepts too.
func TestShapeAgainstUnmarshal(t *testing.T) {
	accepted := 0
	for _, in := range examples() {
		doc, err := wire.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		for at := range doc {
			for b := range 256 {
				changed := bytes.Clone(doc)
				changed[at] = byte(b)
				accepted += agrees(t, changed)
			}
			agrees(t, doc[:at])
		}
	}
	if accepted == 0 {
		t.Fatal("nothing was accepted: this test looks at nothing")
	}
}

func agrees(t *testing.T, doc []byte) int {
	if _, ok := shape.Check(doc, nil); !ok {
		return 0
	}
	var v shaped
	if err := wire.Unmarshal(doc, &v); err != nil {
		t.Fatalf("%x is accepted; Unmarshal says %v", doc, err)
	}
	return 1
}

func TestShapeOfWhatItDoesNotKnow(t *testing.T) {
	for name, make := range map[string]func(){
		"an optional struct that may be all zero": func() {
			wire.NewShape[struct {
				In inner `cbor:"1,keyasint,omitempty"`
			}, inner]()
		},
		"omitzero": func() {
			wire.NewShape[struct {
				In uint64 `cbor:"1,keyasint,omitzero"`
			}, inner]()
		},
		"an array of numbers": func() {
			wire.NewShape[struct {
				F [3]int64 `cbor:"1,keyasint"`
			}, inner]()
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: a shape", name)
				}
			}()
			make()
		}()
	}
}

func FuzzShape(f *testing.F) {
	for _, in := range examples() {
		doc, err := wire.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) { agrees(t, doc) })
}
