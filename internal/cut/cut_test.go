package cut_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/cut"
)

// echo answers every byte until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// passes reports whether a byte comes back over the connection.
func passes(c net.Conn) bool {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

func TestCutEndsConnectionsAndRefusesNewOnes(t *testing.T) {
	p, err := cut.New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := dial()
	if !passes(before) {
		t.Fatal("nothing passes")
	}
	p.Cut()
	start := time.Now()
	if passes(before) || passes(dial()) || time.Since(start) > time.Second {
		t.Fatalf("passes although cut, or notices only after %v", time.Since(start))
	}
	p.Heal()
	if passes(before) || !passes(dial()) {
		t.Fatal("the old connection lives, or no new one passes")
	}
	open := dial()
	passes(open)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if passes(open) {
		t.Fatal("passes although closed")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMuteHoldsBackAnswersOnly(t *testing.T) {
	heard := make(chan byte, 10)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			heard <- b[0]
			c.Write(b)
		}
	}()
	p, err := cut.New(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.Mute()
	c.Write([]byte{7})
	if got := <-heard; got != 7 {
		t.Fatalf("the target heard %d", got)
	}
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := c.Read(make([]byte, 1)); n != 0 {
		t.Fatal("an answer came although muted")
	}
	p.Heal()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatalf("no answer after Heal: %v", err)
	}
}
