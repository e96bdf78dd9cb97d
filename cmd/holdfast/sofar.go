package main

import (
	"fmt"
	"io"
	"time"
)

// A soFar is one line that is written over again and again while something
// takes long: on a terminal only, a few times a second.
type soFar struct {
	w    io.Writer // nil where there is no terminal
	next time.Time
	said bool
}

func newSoFar(w io.Writer) *soFar {
	if !isTerminal(w) {
		return &soFar{}
	}
	return &soFar{w: w, next: time.Now().Add(progressEvery)}
}

// progressEvery is also how long something takes before it is long.
const progressEvery = 250 * time.Millisecond

func (p *soFar) say(format string, args ...any) {
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.said, p.next = true, time.Now().Add(progressEvery)
	fmt.Fprintf(p.w, "\r"+format+"\x1b[K", args...)
}

// end takes the line away.
func (p *soFar) end() {
	if p.said {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
