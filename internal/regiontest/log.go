package regiontest

import (
	"log/slog"
	"os"
	"testing"
)

// Log is where servers of tests log: nowhere, or to standard error with
// HOLDFAST_TEST_LOG=1.
func Log(testing.TB) *slog.Logger {
	if os.Getenv("HOLDFAST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
