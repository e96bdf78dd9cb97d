package embed

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/sparing"
)

// The server has a line for every message that it refuses: they fill no disk.
// What ends the server is always told.
func TestServerLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	l := serverLog{slog.New(slog.NewTextHandler(&out, nil)), &sparing.Log{}}
	for i := range 3000 {
		l.Errorf("Publish Violation - Subject %d", i)
	}
	l.Fatalf("the disk is gone")
	if n := strings.Count(out.String(), "\n"); n != 31 || !strings.Contains(out.String(), "the disk is gone") {
		t.Errorf("%d lines", n)
	}
}
