package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// gate starts a region of one server with a gate that keeps so many bytes in
// memory, and returns an edge's connection.
func gate(t *testing.T, keep int, root *bundle.TrustRoot) (Region, *Gate, *bus.Conn) {
	t.Helper()
	login := embed.Login{Tenant: "acme", User: "u", Password: "p"}
	s, err := embed.Hub(t.Context(), embed.HubConfig{Region: "ra", Dir: t.TempDir(), Login: login})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	connect := func(inbox string) *bus.Conn {
		c, err := bus.Connect(t.Context(), bus.Config{Server: s, User: "u", Password: "p", Inbox: inbox})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	r := Region{Conn: connect(""), Tenant: "acme", Name: "ra"}
	if err := r.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := NewGate(r, slog.New(slog.DiscardHandler))
	g.keep = keep
	if root != nil {
		g.Believe(root)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r, g, connect(auth.EdgeInbox("e1"))
}

// read waits until the gate has read so many objects, and answers questions.
func read(t *testing.T, g *Gate, edge *bus.Conn, n uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, _, err := up(edge, "acme", "ra", "e1").list(t.Context(), askObjects, "")
		if g.last() >= n && !errors.Is(err, ErrBusy) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the gate has read %d of %d: %v", g.last(), n, err)
		}
	}
}

// Data that the gate does not keep is read again, and nothing is left out or
// comes twice, however many answers it takes.
func TestGateGivesWhatItDoesNotKeep(t *testing.T) {
	r, g, edge := gate(t, 100_000, nil)
	const n = 40
	for i := range n {
		d := wire.Sum(fmt.Append(nil, i))
		if err := r.PutKill(t.Context(), d, bytes.Repeat([]byte{byte(i)}, 30_000)); err != nil {
			t.Fatal(err)
		}
	}
	read(t, g, edge, n)
	if g.size > 100_000 || g.bare < n/2 {
		t.Errorf("%d bytes are kept, %d objects have none", g.size, g.bare)
	}
	var got []byte
	cursor, answers := "", 0
	for {
		items, next, err := up(edge, "acme", "ra", "e1").list(t.Context(), askObjects, cursor)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			break
		}
		for _, it := range items {
			got = append(got, it.Data[0])
		}
		cursor, answers = next, answers+1
	}
	if answers < 2 {
		t.Errorf("%d answers: this test looks at nothing", answers)
	}
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(i)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// A node gets the newest releases and their orders only, all kills, and may not
// make up epochs.
func TestGateGivesTheNewestReleases(t *testing.T) {
	r, g, edge := gate(t, objectBytes, nil)
	ctx := t.Context()
	const n = epochsGiven + 6
	for i := range n {
		epoch := uint64(i+1) * 1_000_000_000 // jumps are no reason to miss anything
		if err := r.PublishRelease(ctx, epoch, fmt.Appendf(nil, "release %d", i)); err != nil {
			t.Fatal(err)
		}
		if err := r.PutOrder(ctx, epoch, 1, fmt.Appendf(nil, "order %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutKill(ctx, wire.Sum(nil), []byte("kill")); err != nil {
		t.Fatal(err)
	}
	read(t, g, edge, 3*n+1)
	got := map[string]bool{}
	l := up(edge, "acme", "ra", "e1")
	for cursor := ""; ; {
		items, next, err := l.list(ctx, askObjects, cursor)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			break
		}
		for _, it := range items {
			got[string(it.Data)] = true
		}
		cursor = next
	}
	for i := range n {
		for _, kind := range []string{"release", "order"} {
			if want := i >= n-epochsGiven; got[fmt.Sprint(kind, " ", i)] != want {
				t.Errorf("%s %d of %d: %v", kind, i, n, !want)
			}
		}
	}
	if !got["kill"] {
		t.Error("the kill is missing")
	}
	if _, err := l.ask(ctx, askAttest, "7", []byte("x")); err == nil || errors.Is(err, bus.ErrUnreachable) {
		t.Errorf("the first attestation of an epoch that does not exist: %v", err)
	}
	if _, err := l.ask(ctx, askAttest, "1000000000", []byte("x")); err != nil {
		t.Error(err)
	}
	for _, junk := range []string{"head.a.b", "head.*", "rec.>", "blob.x.0", "blob." + wire.Sum(nil).Hex() + ".*", "x", "att.x.y.z"} {
		a, err := edge.Ask(ctx, "hf.acme.ra.up."+g.name+".e1."+junk, "junk", make([]byte, 40<<10))
		if err != nil || a.Status != statusBad {
			t.Errorf("%s: %q, %v", junk, a.Status, err)
		}
	}
}

// Who may publish and sign nothing cannot have the gate keep back the releases
// that people signed, as too old.
func TestGateCountsSignedReleases(t *testing.T) {
	var keys []*bundle.PrivateKey
	var public []bundle.Key
	for _, role := range []bundle.Role{bundle.RoleRoot, bundle.RoleAuthor, bundle.RoleApprover} {
		k, err := bundle.GenerateKey(role, "p"+string(role))
		if err != nil {
			t.Fatal(err)
		}
		keys, public = append(keys, k), append(public, k.Key)
	}
	root := bundle.NewTrustRoot("acme", time.Now().Add(time.Hour), public...)
	signed, err := bundle.SignRelease(&bundle.Release{
		Tenant: "acme", Epoch: 1, Fallback: bundle.FallbackNone,
		Points: []bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum(nil), Size: 1}}}},
	}, keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	r, g, edge := gate(t, objectBytes, root)
	if err := r.PublishRelease(t.Context(), 1, signed); err != nil {
		t.Fatal(err)
	}
	const n = epochsGiven + 6
	for i := range n {
		junk := []byte("junk")
		if i%2 == 0 {
			junk = signed // of another epoch than its name
		}
		if err := r.PublishRelease(t.Context(), uint64(i+1000), junk); err != nil {
			t.Fatal(err)
		}
	}
	read(t, g, edge, n+1)
	items, _, err := up(edge, "acme", "ra", "e1").list(t.Context(), askObjects, "")
	if err != nil || !slices.ContainsFunc(items, func(i item) bool { return i.Name == "rel.1" }) {
		t.Errorf("%d objects without the release: %v", len(items), err)
	}
	if !g.knows(1) || g.knows(1000) || g.knows(1001) {
		t.Error("epochs that nobody signed")
	}
}

// Questions whose answers are wanted elsewhere are refused, and fill no log.
func TestGateRefusesSparingly(t *testing.T) {
	var out bytes.Buffer
	g := NewGate(Region{Tenant: "acme", Name: "ra"}, slog.New(slog.NewTextHandler(&out, nil)))
	for range 3000 {
		g.up(t.Context(), bus.Question{Subject: "hf.acme.ra.up.any.e1.who", Reply: "hf.acme.ra.pol.rel.1"})
		g.view(t.Context(), bus.Question{Subject: "hf.acme.ra.view.any.e1.who"})
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 30 {
		t.Errorf("%d lines", n)
	}
}
