package embed

import (
	"context"
	"fmt"
	"log/slog"
)

// logger hands the server's log to slog. What the server calls an error is a
// warning to us: a peer that is away, which the server retries by itself.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.at(slog.LevelDebug, format, v) }
func (l logger) Debugf(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l logger) Tracef(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l logger) Warnf(format string, v ...any)   { l.at(slog.LevelWarn, format, v) }
func (l logger) Errorf(format string, v ...any)  { l.at(slog.LevelWarn, format, v) }
func (l logger) Fatalf(format string, v ...any)  { l.at(slog.LevelError, format, v) }

func (l logger) at(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats: "+fmt.Sprintf(format, v...))
	}
}
