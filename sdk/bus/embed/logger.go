package embed

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/holdfast-policy/holdfast/sdk/sparing"
)

// serverLog hands the server's log to slog. What the server calls an error is a
// warning to us: a peer that is away, which the server retries by itself. Every
// refused message and connection is one, so that whoever reaches the server could
// fill a disk: warnings are bounded.
type serverLog struct {
	log      *slog.Logger
	warnings *sparing.Log
}

func (l serverLog) Noticef(format string, v ...any) { l.at(slog.LevelDebug, format, v) }
func (l serverLog) Debugf(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l serverLog) Tracef(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l serverLog) Warnf(format string, v ...any)   { l.at(slog.LevelWarn, format, v) }
func (l serverLog) Errorf(format string, v ...any)  { l.at(slog.LevelWarn, format, v) }
func (l serverLog) Fatalf(format string, v ...any)  { l.at(slog.LevelError, format, v) }

func (l serverLog) at(level slog.Level, format string, v []any) {
	ctx := context.Background()
	switch {
	case !l.log.Enabled(ctx, level):
	case level == slog.LevelWarn:
		l.warnings.Warn(l.log, "nats: "+fmt.Sprintf(format, v...))
	default:
		l.log.Log(ctx, level, "nats: "+fmt.Sprintf(format, v...))
	}
}
