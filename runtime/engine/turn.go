package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

const (
	turnEvery  = 5 * time.Millisecond
	turnWithin = time.Minute // then it is compiled all the same
)

// turn waits until no other engine that shares the folder, in this process or
// another, is compiling what has this identity's first byte: whoever was first
// leaves an entry that the others take. Where there are no locks nobody waits.
func (c *cache) turn(ctx context.Context, id identity) (done func()) {
	f, err := openTurn(filepath.Join(c.dir, fmt.Sprintf("turn-%02x", id[0])))
	if err != nil {
		return func() {} // what is compiled twice is only slow
	}
	done = func() { f.Close() }
	for until := time.Now().Add(turnWithin); !takeTurn(f) && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return done
		case <-time.After(turnEvery):
		}
	}
	return done
}
