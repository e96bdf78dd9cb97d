package index

import (
	"bytes"
	"errors"
	"io"
)

// Frames reads a file of the index and writes what it could read again, and says
// whether that was all.
func Frames(b []byte) (again []byte, whole bool) {
	rest, ok := bytes.CutPrefix(b, []byte(fileTitle))
	if !ok {
		return nil, false
	}
	again = []byte(fileTitle)
	for r := bytes.NewReader(rest); ; {
		s, _, err := readFrame(r)
		if err != nil {
			return again, errors.Is(err, io.EOF)
		}
		if again, err = appendFrame(again, s); err != nil {
			panic(err)
		}
	}
}
