package ship

import (
	"testing"
	"time"
)

func TestPaces(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name   string
		frames []uint64
		status BootStatus
		size   uint64
		since  time.Duration
		want   bool
	}{
		{"the ledger keeps up", []uint64{10, 20, 30}, BootStatus{Shipped: 30, Cosigned: 10}, 31, 0, false},
		{"three frames behind", []uint64{10, 20, 30}, BootStatus{Shipped: 30}, 31, 0, true},
		{"many behind", []uint64{10, 20, 30, 40, 50}, BootStatus{Shipped: 50, Cosigned: 20}, 51, 0, true},
		{"waited", []uint64{10, 20, 30}, BootStatus{Shipped: 30}, 31, pace, false},
		{"a full frame", []uint64{10, 20, 30}, BootStatus{Shipped: 30}, 1030, 0, false},
		{"nothing shipped", nil, BootStatus{}, 1, time.Hour, false},
	} {
		l := &lane{frames: c.frames, sent: now.Add(-c.since)}
		if got := l.paces(c.status, c.size, now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if len(l.frames) > pacedBehind {
			t.Errorf("%s: %d frames are remembered", c.name, len(l.frames))
		}
	}
}
