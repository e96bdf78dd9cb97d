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
