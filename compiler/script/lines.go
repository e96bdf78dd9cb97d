package script

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// origin says where a line of the script comes from: a file, from 1, and its line
// from 1. File 0 means nowhere.
type origin struct{ file, line int }

// readMap reads a source map of version 3: for each line of the output the place
// of the first thing on it.
func readMap(raw []byte) (files []string, lines []origin, err error) {
	var m struct {
		Version  int
		Sources  []string
		Mappings string
	}
	if err := json.Unmarshal(raw, &m); err != nil || m.Version != 3 {
		return nil, nil, fmt.Errorf("source map of version %d: %w", m.Version, err)
	}
	var at segment
	for line := range strings.SplitSeq(m.Mappings, ";") {
		first := origin{}
		for code := range strings.SplitSeq(line, ",") {
			if code == "" {
				continue
			}
			if err := at.advance(code); err != nil {
				return nil, nil, err
			}
			if first.file == 0 && at.source >= 0 && at.source < len(m.Sources) {
				first = origin{at.source + 1, at.line + 1}
			}
		}
		lines = append(lines, first)
	}
	return m.Sources, lines, nil
}

// segment holds the running sums of a source map's segments.
type segment struct{ source, line int }

var errMap = errors.New("source map: not base64 VLQ")

// advance adds one segment: column, source, line, column there, name.
func (s *segment) advance(code string) error {
	var fields []int
	value, shift := 0, 0
	for i := range len(code) {
		digit := strings.IndexByte(alphabet, code[i])
		if digit < 0 || shift > 30 {
			return errMap
		}
		value |= digit & 31 << shift
		shift += 5
		if digit < 32 {
			if n := value >> 1; value&1 != 0 {
				fields = append(fields, -n)
			} else {
				fields = append(fields, n)
			}
			value, shift = 0, 0
		}
	}
	if len(fields) >= 4 {
		s.source, s.line = s.source+fields[1], s.line+fields[2]
	}
	return nil
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// payload is the script as the engine reads it; engine/native.h has the form.
func (b *bundled) payload() []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(b.script)))
	out = append(out, 0, 0, 0, 0)
	out = append(append(out, b.script...), 0)
	for _, line := range b.lines {
		out = binary.AppendUvarint(out, uint64(line.file))
		if line.file > 0 {
			out = binary.AppendUvarint(out, uint64(line.line))
		}
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)))
	for _, name := range b.files {
		out = append(append(out, name...), 0)
	}
	return out
}
