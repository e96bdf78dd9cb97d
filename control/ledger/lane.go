package ledger

import (
	"context"
	"hash/maphash"
)

// A lane is the one goroutine that changes what is known of its boots.
type lane struct{ queue chan func() }

func newLane() lane { return lane{make(chan func(), 64)} }

var laneSeed = maphash.MakeSeed()

// lane is the one of a boot.
func (l *Ledger) lane(key bootKey) lane {
	return l.lanes[maphash.Comparable(laneSeed, key)%lanes]
}

// work does what is asked until stop is closed, when nobody asks any more.
func (a lane) work(stop <-chan struct{}) {
	for {
		select {
		case f := <-a.queue:
			f()
		case <-stop:
			for {
				select {
				case f := <-a.queue:
					f()
				default:
					return
				}
			}
		}
	}
}

// do has the boot's lane do f, and returns when it has; false when ctx ended
// before it began.
func (l *Ledger) do(ctx context.Context, key bootKey, f func()) bool {
	done := make(chan struct{})
	select {
	case l.lane(key).queue <- func() { f(); close(done) }:
		<-done
		return true
	case <-ctx.Done():
		return false
	}
}
