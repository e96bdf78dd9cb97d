package jetstream_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var login = embed.Login{Tenant: "acme", User: "u", Password: "p"}

// hubs is two regions; everything that reaches ra comes through toA.
type hubs struct {
	a, b     *embed.Server
	toA, toB *cut.Proxy
	ra, rb   jetstream.Region
}

func connect(t *testing.T, s *embed.Server) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(t.Context(), bus.Config{Server: s, User: login.User, Password: login.Password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func hub(t *testing.T, c embed.HubConfig) (*embed.Server, jetstream.Region) {
	t.Helper()
	c.Dir, c.Login = t.TempDir(), login
	s, err := embed.Hub(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	r := jetstream.Region{Conn: connect(t, s), Tenant: "acme", Name: c.Region}
	if err := r.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { jetstream.NewGate(r, slog.New(slog.DiscardHandler)).Run(ctx) })
	return s, r
}

func proxy(t *testing.T, target string) *cut.Proxy {
	t.Helper()
	p, err := cut.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// own connects as the process whose server it is.
func own(t *testing.T, s *embed.Server) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(t.Context(), bus.Config{Server: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// background runs f until the test ends and waits for it.
func background(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// twoRegions that copy from one another, each through its own hub.
func twoRegions(t *testing.T) *hubs {
	t.Helper()
	h := apart(t)
	log := slog.New(slog.DiscardHandler)
	background(t, func(ctx context.Context) {
		h.ra.Copy(ctx, jetstream.Region{Conn: h.ra.Conn, Tenant: "acme", Name: "rb"}, log)
	})
	background(t, func(ctx context.Context) {
		h.rb.Copy(ctx, jetstream.Region{Conn: h.rb.Conn, Tenant: "acme", Name: "ra"}, log)
	})
	return h
}

// apart is two linked regions that copy nothing.
func apart(t *testing.T) *hubs {
	t.Helper()
	var h hubs
	h.a, h.ra = hub(t, embed.HubConfig{Region: "ra"})
	h.toA = proxy(t, h.a.LeafAddr())
	h.b, h.rb = hub(t, embed.HubConfig{Region: "rb", Join: h.toA.Addr()})
	h.toB = proxy(t, h.b.LeafAddr())
	return &h
}

// edge starts a node whose releases come out of the channel.
func (h *hubs) edge(t *testing.T, name string, addrs ...string) (*jetstream.Source, chan string) {
	t.Helper()
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{Node: name, Login: login, Hubs: addrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	src := &jetstream.Source{Conn: own(t, s), Tenant: "acme", Node: name, Regions: []string{"ra", "rb"}, Log: slog.New(slog.DiscardHandler)}
	releases := make(chan string, 1000)
	background(t, func(ctx context.Context) {
		src.Watch(ctx, func(envelope []byte) { releases <- string(envelope) })
	})
	return src, releases
}

func expect(t *testing.T, releases chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-releases:
			if got != w {
				t.Errorf("release %q, want %q", got, w)
			}
		case <-time.After(15 * time.Second):
			t.Errorf("release %q never came", w)
			return
		}
	}
}

// blob is incompressible content, always the same for a seed.
func blob(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256([]byte(strconv.Itoa(seed)))).Read(b)
	return b
}

func TestReleaseReachesEveryEdgeOverCuts(t *testing.T) {
	ctx := t.Context()
	h := twoRegions(t)
	both := []string{h.toA.Addr(), h.toB.Addr()}
	e1, r1 := h.edge(t, "e1", both...)
	e2, r2 := h.edge(t, "e2", both[1], both[0])
	publish := func(r jetstream.Region, epoch uint64, content []byte) {
		t.Helper()
		if err := r.PublishRelease(ctx, epoch, []byte(fmt.Sprint("release ", epoch)), wire.Compress(content)); err != nil {
			t.Fatal(err)
		}
	}
	arrived := func(epoch uint64, content []byte) {
		t.Helper()
		start := time.Now()
		defer func() { t.Logf("release %d was waited for %v", epoch, time.Since(start).Round(time.Millisecond)) }()
		expect(t, r1, fmt.Sprint("release ", epoch))
		expect(t, r2, fmt.Sprint("release ", epoch))
		for _, e := range []*jetstream.Source{e1, e2} {
			file, err := e.Package(ctx, wire.Sum(content), uint64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := wire.Decompress(file, len(content)); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
	}
	publish(h.ra, 1, blob(1, 3*jetstream.ChunkSize/2))
	arrived(1, blob(1, 3*jetstream.ChunkSize/2))
	publish(h.rb, 2, blob(2, 1000))
	arrived(2, blob(2, 1000))

	h.toA.Cut()
	publish(h.rb, 3, blob(3, 1000))
	arrived(3, blob(3, 1000))
	time.Sleep(5 * time.Second) // the cut's length is what is tested
	publish(h.ra, 4, blob(4, 1000))
	healed := time.Now()
	h.toA.Heal()
	arrived(4, blob(4, 1000))
	t.Logf("after a cut of 5 s, a release of the cut region is at both edges %v after the link", time.Since(healed).Round(time.Millisecond))
	if d := time.Since(healed); d > 2*time.Second {
		t.Errorf("resumed after %v", d)
	}

	// both regions now have everything under their own names: cut either
	h.toB.Cut()
	publish(h.ra, 5, blob(5, 1000))
	arrived(5, blob(5, 1000))
	select {
	case r := <-r1:
		t.Fatalf("%q came twice", r)
	default:
	}
}

// Three edges over two regions, a new package of 300 KiB with every release.
func TestPropagation(t *testing.T) {
	ctx := t.Context()
	h := twoRegions(t)
	type edge struct {
		*jetstream.Source
		releases chan string
	}
	var edges []edge
	for i, addrs := range [][]string{{h.toA.Addr(), h.toB.Addr()}, {h.toB.Addr(), h.toA.Addr()}, {h.toA.Addr(), h.toB.Addr()}} {
		src, releases := h.edge(t, fmt.Sprint("e", i), addrs...)
		edges = append(edges, edge{src, releases})
	}
	var each []time.Duration
	for n := range 21 {
		content := blob(n, 300<<10)
		file := wire.Compress(content)
		start := time.Now()
		if err := h.ra.PublishRelease(ctx, uint64(n+1), []byte(fmt.Sprint(n)), file); err != nil {
			t.Fatal(err)
		}
		took := make(chan time.Duration, len(edges))
		for _, e := range edges {
			go func() {
				expect(t, e.releases, fmt.Sprint(n))
				if _, err := e.Package(ctx, wire.Sum(content), uint64(len(content))); err != nil {
					t.Error(err)
				}
				took <- time.Since(start)
			}()
		}
		for range edges {
			if d := <-took; n > 0 { // the first one waits for the edges to join
				each = append(each, d)
			}
		}
	}
	slices.Sort(each)
	t.Logf("publish to release and package in the hands of 3 edges: p50 %v, max %v", each[len(each)/2], each[len(each)-1])
	if d := each[len(each)-1]; d > 3*time.Second {
		t.Errorf("the slowest took %v", d)
	}
}

func TestChunksOfEverySize(t *testing.T) {
	ctx := t.Context()
	h := twoRegions(t)
	e, releases := h.edge(t, "e1", h.toA.Addr())
	sizes := []int{0, 1, jetstream.ChunkSize - 1, jetstream.ChunkSize, jetstream.ChunkSize + 1, 2 * jetstream.ChunkSize}
	var files [][]byte
	for i, n := range sizes {
		files = append(files, wire.Compress(blob(i, n)))
	}
	for range 2 { // publishing again changes nothing
		if err := h.ra.PublishRelease(ctx, 1, []byte("r"), files...); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, releases, "r")
	for i, n := range sizes {
		d := wire.Sum(blob(i, n))
		file, err := e.Package(ctx, d, uint64(n))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got, err := wire.Decompress(file, n); err != nil || wire.Sum(got) != d {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if _, err := e.Package(ctx, d, uint64(max(n, 1)-1)); n > 0 && !errors.Is(err, wire.ErrTooLarge) {
			t.Fatalf("%d bytes under a smaller bound: %v", n, err)
		}
	}
	if _, err := e.Package(ctx, wire.Sum([]byte("never published")), 10); !errors.Is(err, jetstream.ErrNoPackage) {
		t.Fatal(err)
	}
}

func TestPoisonedBlobIsNotGivenOut(t *testing.T) {
	ctx := t.Context()
	h := apart(t)
	content := []byte("the true content")
	digest := wire.Sum(content)
	subject := "hf.acme.ra.blob." + digest.Hex() + ".0"
	if _, err := h.ra.Conn.Stream("ra", "POL_acme").Append(ctx, subject, []byte("another content!"), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.ra.PublishRelease(ctx, 1, []byte("r"), wire.Compress(content)); !errors.Is(err, jetstream.ErrConflict) {
		t.Fatalf("publishing over a poisoned blob: %v", err)
	}
	e, releases := h.edge(t, "e1", h.toA.Addr())
	if err := h.ra.PublishRelease(ctx, 2, []byte("after")); err != nil {
		t.Fatal(err)
	}
	expect(t, releases, "after")
	if file, err := e.Package(ctx, digest, 100); err == nil {
		t.Fatalf("a poisoned package was given out: %q", file)
	}
	if err := h.rb.PublishRelease(ctx, 3, []byte("good"), wire.Compress(content)); err != nil {
		t.Fatal(err)
	}
	expect(t, releases, "good")
	file, err := e.Package(ctx, digest, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wire.Decompress(file, 100); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestOneEpochHasOneRelease(t *testing.T) {
	ctx := t.Context()
	_, r := hub(t, embed.HubConfig{Region: "ra"})
	if err := r.PublishRelease(ctx, 7, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := r.PublishRelease(ctx, 7, []byte("one")); err != nil {
		t.Fatalf("the same again: %v", err)
	}
	if err := r.PublishRelease(ctx, 7, []byte("two")); !errors.Is(err, jetstream.ErrConflict) {
		t.Fatalf("another: %v", err)
	}
}

func TestBacklogComesInTheOrderOfEpochs(t *testing.T) {
	h := twoRegions(t)
	for _, epoch := range []uint64{3, 10, 2, 1} {
		if err := h.ra.PublishRelease(t.Context(), epoch, []byte(fmt.Sprint(epoch))); err != nil {
			t.Fatal(err)
		}
	}
	// An edge whose stream was filled while nobody watched.
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{Node: "e1", Login: login, Hubs: []string{h.toA.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	src := &jetstream.Source{Conn: own(t, s), Tenant: "acme", Node: "e1", Regions: []string{"ra", "rb"}, Log: slog.New(slog.DiscardHandler)}
	fill, cancel := context.WithCancel(t.Context())
	src.Watch(fill, func(envelope []byte) {
		if string(envelope) == "1" {
			cancel()
		}
	})
	releases := make(chan string, 100)
	background(t, func(ctx context.Context) { src.Watch(ctx, func(e []byte) { releases <- string(e) }) })
	expect(t, releases, "1", "2", "3", "10")
}

func TestLiveSubject(t *testing.T) {
	for _, c := range []struct{ node, verdict, point, want string }{
		{"e1", "deny", "tool.pre_call", "hf.acme.live.json.e1.deny.tool.pre_call"},
		{"e.1", "deny", "a..b", "hf.acme.live.json.e_1.deny.a._.b"},
		{"", ">", "* x\ty\r\n", "hf.acme.live.json._._.__x_y__"},
	} {
		got := jetstream.LiveSubject("acme", jetstream.JSON, c.node, c.verdict, c.point)
		if got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		if pattern := jetstream.LiveSubjects("acme", jetstream.JSON); !strings.HasPrefix(got, strings.TrimSuffix(pattern, ">")) {
			t.Errorf("%q does not match %q", got, pattern)
		}
	}
}
