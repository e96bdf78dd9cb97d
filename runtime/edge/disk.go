package edge

import (
	"context"
	"fmt"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A notice is what the journal has to say: an alarm for people, and a record.
type notice struct {
	kind, text string
	record     *audit.AdminRecord
}

// maxNotices bounds what waits to be told; the log has every one.
const maxNotices = 64

// notify keeps a notice to be told. It does not wait: the journal calls it.
func (n *Node) notify(x notice) {
	n.log.Error("journal", "kind", x.kind, "text", x.text)
	select {
	case n.notices <- x:
	default:
	}
}

// tellNotices alarms and records what the journal said, until ctx ends.
func (n *Node) tellNotices(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-n.notices:
			n.alarm(x.kind, x.text)
			n.Record(x.record)
		}
	}
}

// spaceChanged tells of the journal's room: that it gets low before it is full.
func (n *Node) spaceChanged(s journal.Space) {
	text := fmt.Sprintf("room for records is %s: %d bytes are free, the journal takes %d", s.Level, s.Free, s.Used)
	if s.Quota > 0 {
		text += fmt.Sprintf(" of %d", s.Quota)
	}
	n.notify(notice{"journal_space", text, &audit.AdminRecord{Event: "journal_space", Text: s.Level.String(),
		Detail: map[string]any{"free": s.Free, "used": s.Used, "quota": s.Quota}}})
}

// damageFound tells of what the scrub found.
func (n *Node) damageFound(d *journal.Damage) {
	text := fmt.Sprintf("boot %s: records %d-%d cannot be read (%s at %d): %s", d.Boot, d.From, d.To, d.File, d.Offset, d.Reason)
	n.notify(notice{"journal_damage", text, &audit.AdminRecord{Event: "journal_damage", Text: text,
		Detail: map[string]any{"boot": d.Boot, "file": d.File, "offset": int64(d.Offset), "from": int64(d.From), "to": int64(d.To)}}})
}

// RegionAhead tells that a region has more of a boot than the journal, by so many
// records: the journal was set back, or somebody else writes in the node's name.
func (n *Node) RegionAhead(text string, records uint64) {
	const kind = "region_ahead_of_journal"
	n.notify(notice{kind, text, &audit.AdminRecord{Event: kind, Text: text, Count: records}})
}

// lastHeartbeat is the digest of the envelope of the last heartbeat that counted.
func (n *Node) lastHeartbeat() (d wire.Digest) {
	if heard := n.heard.Load(); heard != nil {
		return *heard
	}
	return d
}
