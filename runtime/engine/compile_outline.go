package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Sections of a module, and the body that stands for every body: one that is
// valid for all types of functions and traps if it should ever run.
const (
	sectionCustom = 0
	sectionCode   = 10
	emptyBody     = "\x03\x00\x00\x0b" // 3 bytes, no locals, unreachable, end
)

// outline returns a module without its bodies. Of a module whose code it loads
// wazero needs nothing else, and it neither reads nor keeps bodies then. A custom
// section tells modules apart that differ in their bodies alone: wazero knows
// compiled code by the digest of the module that it was given.
func outline(module []byte) ([]byte, error) {
	digest := sha256.Sum256(module)
	const name = "\x07outline"
	const head = 8 // magic and version
	if len(module) < head {
		return nil, errors.New("outline: no module")
	}
	out := bytes.Clone(module[:head])
	out = append(out, sectionCustom, byte(len(name)+len(digest)))
	out = append(append(out, name...), digest[:]...)
	for rest := module[head:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		end := 1 + n + int(size)
		if n <= 0 || size > uint64(len(rest)) || end > len(rest) {
			return nil, errors.New("outline: a section ends behind the module")
		}
		if rest[0] == sectionCode {
			count, _ := binary.Uvarint(rest[1+n:])
			out = appendBodies(out, count)
		} else {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out, nil
}

func appendBodies(out []byte, count uint64) []byte {
	content := binary.AppendUvarint(nil, count)
	for range count {
		content = append(content, emptyBody...)
	}
	out = binary.AppendUvarint(append(out, sectionCode), uint64(len(content)))
	return append(out, content...)
}
