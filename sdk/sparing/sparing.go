// Package sparing bounds what strangers can have written into a log.
package sparing

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// maxWarnings bounds the lines of a Log, in a minute.
const maxWarnings = 30

// A Log logs at most 30 lines a minute: what strangers send must not fill a
// disk. The next line says how many there were not. The zero value is ready.
type Log struct {
	mu       sync.Mutex
	since    time.Time
	lines    int
	unlogged int
}

// Warn logs a line, if there is room for it.
func (s *Log) Warn(log *slog.Logger, msg string, args ...any) {
	s.At(log, slog.LevelWarn, msg, args...)
}

// At is Warn at another level.
func (s *Log) At(log *slog.Logger, level slog.Level, msg string, args ...any) {
	s.mu.Lock()
	if now := time.Now(); now.Sub(s.since) >= time.Minute {
		s.since, s.lines = now, 0
	}
	if s.lines == maxWarnings {
		s.unlogged++
		s.mu.Unlock()
		return
	}
	s.lines++
	if s.unlogged > 0 {
		args = append(args, "unlogged_before", s.unlogged)
		s.unlogged = 0
	}
	s.mu.Unlock()
	log.Log(context.Background(), level, msg, args...)
}
