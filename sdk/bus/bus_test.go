package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

var login = embed.Login{Tenant: "acme", User: "u", Password: "p"}

func connect(t *testing.T) *bus.Conn {
	t.Helper()
	s, err := embed.Hub(t.Context(), embed.HubConfig{Region: "ra", Dir: t.TempDir(), Login: login})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	c, err := bus.Connect(t.Context(), bus.Config{Server: s, User: "u", Password: "p", Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func stream(t *testing.T, c *bus.Conn, conf bus.StreamConfig) *bus.Stream {
	t.Helper()
	conf.Subjects, conf.MaxMsgSize = []string{"s.>"}, 1<<20
	s := c.Stream("ra", "S")
	if err := s.Ensure(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAppendBehindAFence(t *testing.T) {
	ctx := t.Context()
	s := stream(t, connect(t), bus.StreamConfig{})
	if _, err := s.Last(ctx, "s.a"); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("last of nothing: %v", err)
	}
	first, err := s.Append(ctx, "s.a", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, "s.b", []byte("other subject"), 0); err != nil {
		t.Fatal(err)
	}
	for _, fence := range []uint64{0, first + 1, first + 100} {
		var lost *bus.FenceError
		if _, err := s.Append(ctx, "s.a", []byte("lost"), fence); !errors.As(err, &lost) || lost.Fence != fence || lost.Subject != "s.a" {
			t.Fatalf("fence %d: %v", fence, err)
		}
	}
	second, err := s.Append(ctx, "s.a", []byte("2"), first)
	if err != nil || second <= first {
		t.Fatalf("%d, %v", second, err)
	}
	m, err := s.Last(ctx, "s.a")
	if err != nil || string(m.Data) != "2" || m.Seq != second || m.Subject != "s.a" || time.Since(m.Time).Abs() > time.Minute {
		t.Fatalf("%+v, %v", m, err)
	}
}

func TestImmutableRefusesASecondMessageWithoutAnyFence(t *testing.T) {
	ctx := t.Context()
	s := stream(t, connect(t), bus.StreamConfig{Immutable: true})
	if err := s.Put(ctx, "s.a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "s.a", []byte("2")); err == nil {
		t.Fatal("overwritten")
	}
	if m, err := s.Last(ctx, "s.a"); err != nil || string(m.Data) != "1" {
		t.Fatalf("%+v, %v", m, err)
	}
}

func TestAbsentStreamIsUnreachableWithinTheBound(t *testing.T) {
	c := connect(t)
	for name, f := range map[string]func(context.Context, *bus.Stream) error{
		"append": func(ctx context.Context, s *bus.Stream) error { _, err := s.Append(ctx, "s.a", nil, 0); return err },
		"put":    func(ctx context.Context, s *bus.Stream) error { return s.Put(ctx, "s.a", nil) },
		"last":   func(ctx context.Context, s *bus.Stream) error { _, err := s.Last(ctx, "s.a"); return err },
		"next":   func(ctx context.Context, s *bus.Stream) error { _, err := s.Next(ctx, 1, ">"); return err },
		"ensure": func(ctx context.Context, s *bus.Stream) error { return s.Ensure(ctx, bus.StreamConfig{}) },
		"purge":  func(ctx context.Context, s *bus.Stream) error { return s.Purge(ctx, "s.a") },
		"batch":  func(ctx context.Context, s *bus.Stream) error { _, err := s.Batch(ctx, 1, ">", 10, 1000); return err },
	} {
		start := time.Now()
		if err := f(t.Context(), c.Stream("nowhere", "S")); !errors.Is(err, bus.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > bus.Timeout+time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
	if err := c.Stream("", "S").Put(t.Context(), "s.a", nil); err == nil {
		t.Error("a stream of no domain took a message")
	}
}

func TestAppendDemandsTheRightStreamsAcknowledgement(t *testing.T) {
	c := connect(t)
	stream(t, c, bus.StreamConfig{})
	if _, err := c.Stream("ra", "OTHER").Append(t.Context(), "s.a", nil, 0); err == nil {
		t.Fatal("stream S acknowledged what OTHER should hold")
	}
}

func TestFollowGivesOrderAndEveryMessageOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := stream(t, connect(t), bus.StreamConfig{})
	const n = 300
	put := func(from, to int) {
		for i := from; i < to; i++ {
			if err := s.Put(ctx, fmt.Sprintf("s.%d", i%3), []byte(fmt.Sprint(i))); err != nil {
				t.Error(err)
				return
			}
		}
	}
	put(0, n/2)
	go put(n/2, n)
	var got []string
	done := errors.New("done")
	err := s.Follow(ctx, 1, "s.>", []string{"s.>"}, time.Minute, func(group []bus.Msg) error {
		for _, m := range group {
			got = append(got, string(m.Data))
		}
		if len(got) >= n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || len(got) != n {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, s)
		}
	}
}

func TestFollowBeginsAnewWithAnotherStream(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	got := make(chan string, 10)
	var s *bus.Stream
	hub := func(dir string) (*embed.Server, *bus.Conn) {
		h, err := embed.Hub(ctx, embed.HubConfig{Region: "ra", Dir: dir, Login: login})
		if err != nil {
			t.Fatal(err)
		}
		c, err := bus.Connect(ctx, bus.Config{Server: h, User: "u", Password: "p"})
		if err != nil {
			t.Fatal(err)
		}
		return h, c
	}
	h, c := hub(dir)
	s = stream(t, c, bus.StreamConfig{})
	for i := range 5 {
		if err := s.Put(ctx, "s.a", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	port := h.LeafAddr()
	edge, err := embed.Leaf(ctx, embed.LeafConfig{Node: "e1", Login: login, Hubs: []string{port}})
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Shutdown()
	far, err := bus.Connect(ctx, bus.Config{Server: edge, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	go far.Stream("ra", "S").Follow(ctx, 1, "s.>", []string{"s.>"}, 50*time.Millisecond, func(group []bus.Msg) error {
		for _, m := range group {
			got <- string(m.Data)
		}
		return nil
	})
	want := func(values ...string) {
		t.Helper()
		for _, v := range values {
			select {
			case g := <-got:
				if g != v {
					t.Fatalf("got %s, want %s", g, v)
				}
			case <-ctx.Done():
				t.Fatalf("%s never came", v)
			}
		}
	}
	want("0", "1", "2", "3", "4")
	c.Close()
	h.Shutdown()
	h, err = embed.Hub(ctx, embed.HubConfig{Region: "ra", Dir: t.TempDir(), Login: login, LeafPort: portOf(t, port)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Shutdown()
	c, err = bus.Connect(ctx, bus.Config{Server: h, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s = stream(t, c, bus.StreamConfig{})
	if err := s.Put(ctx, "s.a", []byte("anew")); err != nil {
		t.Fatal(err)
	}
	want("anew")
}

func portOf(t *testing.T, addr string) (port int) {
	t.Helper()
	_, p, _ := bytes.Cut([]byte(addr), []byte(":"))
	if _, err := fmt.Sscan(string(p), &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestConnectGivesUpWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bus.Connect(ctx, bus.Config{URL: "nats://192.0.2.1:4222"}); err == nil {
		t.Fatal("connected to nowhere")
	}
}
