package ledger

import (
	"os"
	"testing"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// A node is told what the region's ledger has, whatever the stream says.
func TestHeadIsTheLedgers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	conn, err := bus.Connect(t.Context(), bus.Config{Server: p.hub, User: "u", Password: "p", Inbox: auth.EdgeInbox("e1")})
	must(t, err)
	t.Cleanup(conn.Close)
	sink := jetstream.Sink{
		Region: jetstream.Region{Conn: conn, Tenant: tenant, Name: "ra"}, Node: p.keys.Node(tenant, a.node), Ledger: p.keys.Region(tenant, "ra"),
	}
	head := func(want, fence uint64) func() bool {
		return func() bool {
			last, f, err := sink.Head(t.Context(), a.node, a.boot)
			return err == nil && last == want && f == fence
		}
	}
	publish := func(fence uint64, first, last int) uint64 {
		t.Helper()
		next, err := sink.Publish(t.Context(), a.node, a.boot, fence, a.frame(first, last))
		must(t, err)
		return next
	}
	l, stop := p.start()
	p.gate(l)
	until(t, "nothing", head(0, 0))
	fence := publish(0, 1, 10)
	fence = publish(fence, 11, 30)
	p.cosigned(l, a, 30)
	until(t, "the stream's", head(30, fence))

	p.drop("REC_" + tenant)
	p.drop("RCPT_" + tenant)
	until(t, "the ledger's, when the streams are new", head(30, 0))
	fence = publish(0, 31, 40) // nothing comes twice
	p.cosigned(l, a, 40)
	p.verifies(40)
	until(t, "the stream's", head(40, fence))

	// The region loses its archive, and the stream: its receipt alone is no record.
	stop()
	must(t, os.RemoveAll(p.dir))
	p.drop("REC_" + tenant)
	l, _ = p.start()
	p.regate(l)
	until(t, "what the receipt is of is lacking", head(0, 0))
	publish(0, 1, 40)
	p.cosigned(l, a, 40)
	p.verifies(40)
}

// A node that goes on behind records which only it has is refused once, so that
// it asks where the region is.
func TestGateTellsOfAGap(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	conn, err := bus.Connect(t.Context(), bus.Config{Server: p.hub, User: "u", Password: "p", Inbox: auth.EdgeInbox("e1")})
	must(t, err)
	t.Cleanup(conn.Close)
	sink := jetstream.Sink{
		Region: jetstream.Region{Conn: conn, Tenant: tenant, Name: "ra"}, Node: p.keys.Node(tenant, a.node), Ledger: p.keys.Region(tenant, "ra"),
	}
	l, _ := p.start()
	p.gate(l)
	until(t, "the gate", func() bool { _, _, err := sink.Head(t.Context(), a.node, a.boot); return err == nil })
	fence, err := sink.Publish(t.Context(), a.node, a.boot, 0, a.frame(21, 30))
	must(t, err)
	until(t, "lacking", func() bool { _, lacking := l.Lacking(a.node, a.boot); return lacking })
	if _, err := sink.Publish(t.Context(), a.node, a.boot, fence, a.frame(31, 40)); err == nil {
		t.Fatal("a batch behind a gap was taken without a word")
	}
	last, fence, err := sink.Head(t.Context(), a.node, a.boot)
	if err != nil || last != 0 {
		t.Fatalf("head %d, %v", last, err)
	}
	if fence, err = sink.Publish(t.Context(), a.node, a.boot, fence, a.frame(31, 40)); err != nil {
		t.Fatalf("a node that cannot help is kept back: %v", err)
	}
	_, err = sink.Publish(t.Context(), a.node, a.boot, fence, a.frame(1, 20))
	must(t, err)
	p.cosigned(l, a, 40)
	p.verifies(40)
}
