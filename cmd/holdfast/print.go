package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A printer writes lines for people, in colour on a terminal only. It keeps
// the first error.
type printer struct {
	w      io.Writer
	colour bool
	err    error
}

func newPrinter(w io.Writer) *printer {
	return &printer{w: w, colour: isTerminal(w) && os.Getenv("NO_COLOR") == ""}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p *printer) line(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); p.err == nil {
		p.err = err
	}
}

func (p *printer) green(s string) string { return p.paint("32", s) }
func (p *printer) red(s string) string   { return p.paint("31", s) }
func (p *printer) bold(s string) string  { return p.paint("1", s) }
func (p *printer) faint(s string) string { return p.paint("2", s) }

func (p *printer) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
