package regiontest

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"testing"
)

// Log is where servers of a test log: to the test when it has failed, and to
// standard error at once with HOLDFAST_TEST_LOG=1.
func Log(t testing.TB) *slog.Logger {
	if os.Getenv("HOLDFAST_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	kept := &tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of a log:\n%s", kept.bytes())
		}
	})
	return slog.New(slog.NewTextHandler(kept, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// A tail keeps the last lines that are written to it.
type tail struct {
	mu    sync.Mutex
	lines [][]byte
}

const keptLines = 40

func (l *tail) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, bytes.Clone(line))
	if len(l.lines) > keptLines {
		l.lines = l.lines[1:]
	}
	return len(line), nil
}

func (l *tail) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Join(l.lines, nil)
}
