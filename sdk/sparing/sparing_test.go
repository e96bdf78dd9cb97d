package sparing_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/sparing"
)

// Three thousand different documents of a stranger are thirty lines.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	log, s := slog.New(slog.NewTextHandler(&out, nil)), sparing.Log{}
	for i := range 3000 {
		s.Warn(log, "document refused", "reason", fmt.Sprint("key ", i))
	}
	if n := strings.Count(out.String(), "\n"); n != 30 {
		t.Errorf("%d lines", n)
	}
}
