package jetstream_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// envelope is one of a payload type that nobody signed.
func envelope(payloadType string) []byte {
	return fmt.Appendf(nil, `{"payloadType":%q,"payload":"eA==","signatures":[]}`, payloadType)
}

func TestEverySignedObjectReachesItsNodes(t *testing.T) {
	w := regiontest.StartWorld(t, 3, "acme")
	e1, e2 := w.Node("acme", "e1", w.A, w.B), w.Node("acme", "e2", w.B, w.A)
	ra, rb := w.Region(w.A, 1, "acme"), w.Region(w.B, 2, "acme")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	content := blob(7, 3*jetstream.ChunkSize/2)
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(
		ra.PutRoot(ctx, 2, []byte("root 2")),
		ra.PublishRelease(ctx, 1, []byte("release 1"), wire.Compress(content)),
		rb.PutOrder(ctx, 1, 1, []byte("order 1")),
		rb.PutOrder(ctx, 1, 1, []byte("order 1")),
		rb.PutKill(ctx, wire.Sum([]byte("k")), []byte("kill")),
		ra.PutLift(ctx, wire.Sum([]byte("l")), []byte("lift")),
		ra.PutEnrolment(ctx, "e1", 1, []byte("enrolment of e1")),
		ra.PutEnrolment(ctx, "e2", 1, []byte("enrolment of e2")),
		ra.PutData(ctx, wire.Sum([]byte("x")), envelope(bundle.ErasureType)),
		rb.PutData(ctx, wire.Sum([]byte("t")), envelope(bundle.RetirementType)),
		rb.PutData(ctx, wire.Sum([]byte("h")), envelope(bundle.HoldType)),
		rb.PutData(ctx, wire.Sum([]byte("u")), envelope(bundle.HoldReleaseType)),
	)
	if err := ra.PutData(ctx, wire.Sum([]byte("k")), envelope(bundle.KillType)); err == nil {
		t.Error("a kill is stored as a document about records")
	}
	for _, n := range []*regiontest.Node{e1, e2} {
		n.Expect(t, 10*time.Second, "root 2", "release 1", "order 1", "kill", "lift", "enrolment of "+n.Name,
			string(envelope(bundle.ErasureType)), string(envelope(bundle.RetirementType)))
	}
	regiontest.Until(t, "heartbeats of both regions", 10*time.Second, func() bool {
		must(ra.Heartbeat(ctx, []byte("hb ra")), rb.Heartbeat(ctx, []byte("hb rb")))
		for _, n := range []*regiontest.Node{e1, e2} {
			for _, hb := range []string{"hb ra", "hb rb"} {
				if _, ok := n.Has(hb); !ok {
					return false
				}
			}
		}
		return true
	})
	if _, ok := e1.Has(string(envelope(bundle.HoldType))); ok {
		t.Error("e1 got a hold, which is for ledgers")
	}
	if _, ok := e1.Has("enrolment of e2"); ok {
		t.Error("e1 got the enrolment of e2")
	}
	for _, n := range []*regiontest.Node{e1, e2} {
		if file, err := n.Package(ctx, wire.Sum(content), uint64(len(content))); err != nil {
			t.Error(err)
		} else if got, err := wire.Decompress(file, len(content)); err != nil || !slices.Equal(got, content) {
			t.Errorf("%s: another package, %v", n.Name, err)
		}
		for _, env := range n.All() {
			if count := n.Times(env); count > 1 && env[:2] != "hb" {
				t.Errorf("%s got %q %d times", n.Name, env, count)
			}
		}
	}
	// A node that comes later gets the same, in an order in which it can be believed.
	e3 := w.Node("acme", "e3", w.B, w.A)
	e3.Expect(t, 10*time.Second, "root 2", "release 1", "order 1", "kill", "lift")
	if leader, err := rb.Leader(ctx, 1); err != nil || leader != "ra" {
		regiontest.Until(t, "rb knows who leads", 5*time.Second, func() bool { l, _ := rb.Leader(ctx, 1); return l == "ra" })
	}

	attested := make(chan string, 100)
	background(t, func(ctx context.Context) {
		ra.Attestations(ctx, func(node string, first bool, epoch uint64, msg []byte, at time.Time) {
			if time.Since(at).Abs() > time.Minute {
				t.Errorf("stored at %v", at)
			}
			attested <- fmt.Sprint(node, " ", first, " ", epoch, " ", string(msg))
		})
	})
	must(e2.Attest(ctx, true, 1, []byte("first")), e2.Attest(ctx, true, 1, []byte("not first")), e2.Attest(ctx, false, 0, []byte("newest")))
	var got []string
	for len(got) < 2 || got[len(got)-1] != "e2 false 0 newest" {
		select {
		case a := <-attested:
			got = append(got, a)
		case <-ctx.Done():
			t.Fatalf("attestations: %q", got)
		}
	}
	if slices.Contains(got, "e2 true 1 not first") || !slices.Contains(got, "e2 true 1 first") {
		t.Errorf("attestations: %q", got)
	}
}
