package ship

import (
	"testing"
	"time"
)

func TestDoubts(t *testing.T) {
	start := time.Unix(1000, 0)
	behind, even := BootStatus{Shipped: 10, Cosigned: 5}, BootStatus{Shipped: 10, Cosigned: 10}
	for _, c := range []struct {
		name   string
		status []BootStatus
		after  time.Duration
		want   bool
	}{
		{"shipped, not counter-signed", []BootStatus{behind, behind}, doubtStalled, true},
		{"not for long", []BootStatus{behind, behind}, doubtStalled - 1, false},
		{"it moves", []BootStatus{behind, {Shipped: 20, Cosigned: 10}}, doubtStalled, false},
		{"everything is counter-signed", []BootStatus{even, even}, doubtStalled, false},
		{"for long", []BootStatus{even, even}, doubtIdle, true},
	} {
		l := &lane{known: true}
		now, got := start, false
		for _, s := range c.status {
			got = l.doubts(s, now)
			now = now.Add(c.after)
		}
		if got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got && l.doubts(c.status[0], now.Add(-c.after)) {
			t.Errorf("%s: again at once", c.name)
		}
	}
}
