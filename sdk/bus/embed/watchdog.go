package embed

import (
	"context"
	"net"
	"time"
)

// Bounds of the watchdog.
const (
	rebuildAfter = 15 * time.Second
	maxBackoff   = 16
	lookEvery    = time.Second
	dialWithin   = time.Second
)

// watch builds the server anew when its link stays down although a hub answers:
// leaf links have been seen that stopped reconnecting (nats-server #7615). A
// link that is up but dead falls by its pings within six seconds.
func (s *Server) watch(ctx context.Context, c LeafConfig) {
	bound, factor := c.RebuildAfter, time.Duration(1)
	if bound <= 0 {
		bound = rebuildAfter
	}
	tick := time.NewTicker(min(lookEvery, bound/4+1))
	defer tick.Stop()
	up := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case s.NumLeafs() > 0:
			up, factor = time.Now(), 1
		case time.Since(up) < bound*factor:
		case answers(ctx, c.Hubs):
			if s.rebuild(ctx, c) { // otherwise again at the next look
				up, factor = time.Now(), min(2*factor, maxBackoff)
			}
		}
	}
}

// rebuild replaces the server by a new one of the same configuration, at the
// same address. Clients in this process connect to it by themselves.
func (s *Server) rebuild(ctx context.Context, c LeafConfig) bool {
	s.log.Warn("leaf link is down although a hub answers: building the server anew", "node", c.Node)
	s.stop(s.current.Load())
	n, _, err := s.start(ctx, c.config(s.secret))
	if err != nil {
		s.log.Error("leaf server is not back", "node", c.Node, "err", err)
		return false
	}
	s.current.Store(n)
	s.rebuilt.Add(1)
	return true
}

// answers reports whether a hub takes connections and speaks first, as NATS does.
func answers(ctx context.Context, addrs []string) bool {
	for _, addr := range addrs {
		d := net.Dialer{Timeout: dialWithin}
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		conn.SetReadDeadline(time.Now().Add(dialWithin))
		n, _ := conn.Read(make([]byte, 1))
		conn.Close()
		if n > 0 {
			return true
		}
	}
	return false
}
