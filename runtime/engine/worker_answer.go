package engine

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// A worker answers one byte and what belongs to it.
const (
	answerCode    = 'c' // an artefact
	answerRefused = 'r' // length, a wasm.Refusal in JSON
	answerFailed  = 'e' // length, an error's text
)

// maxReport bounds the words of a worker.
const maxReport = 16 << 10

func writeReport(w io.Writer, kind byte, text []byte) error {
	text = text[:min(len(text), maxReport)]
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text)))
	_, err := w.Write(append(head, text...))
	return err
}

// An artefact is written as the name of the code, the sizes of the rewritten
// module, of the outline and of the code, the outline and the code. So it comes
// from workers and lies in caches.
const (
	nameBytes = 64 // hexadecimal
	headBytes = nameBytes + 4 + 4 + 8
)

func writeArtefact(w io.Writer, a *artefact, code io.Reader) error {
	if len(a.name) != nameBytes {
		return fmt.Errorf("wazero's file has the name %q", a.name)
	}
	head := append(make([]byte, 0, headBytes), a.name...)
	head = binary.BigEndian.AppendUint32(head, a.rewritten)
	head = binary.BigEndian.AppendUint32(head, uint32(len(a.outline)))
	head = binary.BigEndian.AppendUint64(head, uint64(a.size))
	for _, part := range [][]byte{head, a.outline} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_, err := io.CopyN(w, code, a.size)
	return err
}

var (
	errGarbage = errors.New("not an answer")         // no worker of ours says this
	errCut     = errors.New("the answer ends early") // the worker has ended
)

// readArtefact reads what writeArtefact wrote and believes none of it beyond the
// limits. The code goes to a file in dir that nobody else can write to.
func readArtefact(r io.Reader, dir string, maxModule, maxCode int64) (_ *artefact, err error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	a := &artefact{name: string(head[:nameBytes]), rewritten: binary.BigEndian.Uint32(head[nameBytes:])}
	outlineSize := int64(binary.BigEndian.Uint32(head[nameBytes+4:]))
	size := binary.BigEndian.Uint64(head[nameBytes+8:])
	if _, err := hex.DecodeString(a.name); err != nil || outlineSize > maxModule || size > uint64(maxCode) {
		return nil, fmt.Errorf("%w: name %.80q, %d bytes of module, %d of code", errGarbage, a.name, outlineSize, size)
	}
	a.outline = make([]byte, outlineSize)
	if _, err := io.ReadFull(r, a.outline); err != nil {
		return nil, fmt.Errorf("%w: outline: %w", errCut, err)
	}
	if a.code, a.path, err = privateFile(dir); err != nil {
		return nil, err
	}
	if err := a.fill(r, int64(size)); err != nil {
		a.close()
		return nil, fmt.Errorf("%w: code: %w", errCut, err)
	}
	return a, nil
}

// readAnswer reads what a worker says after it was sent the module, to its end.
func readAnswer(r io.Reader, j job) (*artefact, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	switch kind[0] {
	case answerCode:
		a, err := readArtefact(r, j.keep, j.maxRewritten(), j.maxCode())
		if err != nil {
			return nil, err
		}
		if n, _ := r.Read(kind[:]); n != 0 {
			a.close()
			return nil, fmt.Errorf("%w: more behind the code", errGarbage)
		}
		return a, nil
	case answerRefused, answerFailed:
		return nil, readReport(r, kind[0])
	}
	return nil, fmt.Errorf("%w: begins with %#x", errGarbage, kind[0])
}

// readReport returns the error that a worker reports.
func readReport(r io.Reader, kind byte) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	length := binary.BigEndian.Uint32(size[:])
	if length > maxReport {
		return fmt.Errorf("%w: a report of %d bytes", errGarbage, length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("%w: report: %w", errCut, err)
	}
	if kind == answerFailed {
		return &failure{string(text)}
	}
	refusal := new(wasm.Refusal)
	if err := json.Unmarshal(text, refusal); err != nil {
		return fmt.Errorf("%w: refusal: %w", errGarbage, err)
	}
	return refusal
}

// failure is the compiler's own error, as a worker tells it.
type failure struct{ text string }

func (f *failure) Error() string { return f.text }
