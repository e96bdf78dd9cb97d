// Package cut is a TCP proxy whose link can be cut and healed: for tests and
// for the chapter of the demonstration that cuts a region off.
package cut

import (
	"errors"
	"io"
	"net"
	"sync"
)

// A Proxy passes connections on to a target until it is cut.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	muted chan struct{} // closed when the target may be heard again; nil when it is
	open  map[net.Conn]struct{}
}

// New listens on a free port of 127.0.0.1 and passes connections to target,
// a host:port.
func New(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, open: map[net.Conn]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is the host:port that the proxy listens on.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut closes every connection and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.closeAll()
	p.unmute()
}

// Mute holds back what the target says, until Heal or Cut: questions arrive,
// answers do not.
func (p *Proxy) Mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.muted == nil {
		p.muted = make(chan struct{})
	}
}

// Heal lets connections through again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	p.unmute()
}

// unmute lets the target be heard. The lock is held.
func (p *Proxy) unmute() {
	if p.muted != nil {
		close(p.muted)
		p.muted = nil
	}
}

// Close ends the proxy and every connection, and returns when its goroutines
// have ended.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.cut = true
	p.closeAll()
	p.unmute()
	p.mu.Unlock()
	err := p.listener.Close()
	p.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// closeAll resets the connections, so that both ends notice at once.
func (p *Proxy) closeAll() {
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(c) {
			continue
		}
		p.running.Go(func() { p.pass(c) })
	}
}

func (p *Proxy) pass(from net.Conn) {
	defer p.drop(from)
	to, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(to) {
		return
	}
	defer p.drop(to)
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(hearing{p, from}, to)
		from.Close()
	})
	io.Copy(to, from)
	to.Close()
	back.Wait()
}

// hearing writes to a client once the target may be heard.
type hearing struct {
	p  *Proxy
	to net.Conn
}

func (h hearing) Write(b []byte) (int, error) {
	h.p.mu.Lock()
	muted := h.p.muted
	h.p.mu.Unlock()
	if muted != nil {
		<-muted
	}
	return h.to.Write(b)
}

// keep remembers c, or closes it when the link is cut.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		c.Close()
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}
