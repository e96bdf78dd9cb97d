package engine

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// The words of a trap may be a guest's, and go into records.
func TestShortened(t *testing.T) {
	if short := strings.Repeat("é", maxDetail/2); shortened(short) != short {
		t.Error("what fits is cut")
	}
	long := shortened("x" + strings.Repeat("é", maxDetail))
	if len(long) > maxDetail+3 || !utf8.ValidString(long) || !strings.HasSuffix(long, "é...") {
		t.Errorf("%d bytes, %q", len(long), long[len(long)-10:])
	}
}
