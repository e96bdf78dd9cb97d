package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// statusHeader is how an answer went, numberHeader a number beside the data.
const (
	statusHeader = "Holdfast-Status"
	numberHeader = "Holdfast-Number"
)

// A Question is a request that somebody answers.
type Question struct {
	Subject string
	// Reply is where the asker wants the answer, of its own choosing: nothing
	// says that the asker may publish there.
	Reply string
	// Number stands beside the data.
	Number string
	Data   []byte
}

// An Answer says how it went: Status is "" when it went well, otherwise a word
// of the protocol that the two sides share.
type Answer struct {
	Status string
	Number string
	Data   []byte
}

// ErrNobody is an ErrUnreachable of which it is certain that the question has
// reached nobody.
var ErrNobody = fmt.Errorf("%w: nobody is asked", ErrUnreachable)

// Ask sends a question and returns the answer, the first one if several answer;
// ErrUnreachable when nobody answers in time.
func (c *Conn) Ask(ctx context.Context, subject, number string, data []byte) (Answer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	m := &nats.Msg{Subject: subject, Data: data}
	if number != "" {
		m.Header = nats.Header{numberHeader: {number}}
	}
	reply, err := c.nc.RequestMsgWithContext(ctx, m)
	if errors.Is(err, nats.ErrNoResponders) {
		return Answer{}, fmt.Errorf("ask %s: %w", subject, ErrNobody)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s: %w", subject, unreachable(err))
	}
	return Answer{Status: reply.Header.Get(statusHeader), Number: reply.Header.Get(numberHeader), Data: reply.Data}, nil
}

// Peer is what SetPeer remembered under a key: whom this connection asks.
func (c *Conn) Peer(key string) string {
	p, _ := c.peers.Load(key)
	name, _ := p.(string)
	return name
}

// SetPeer remembers a name under a key; "" forgets it.
func (c *Conn) SetPeer(key, name string) { c.peers.Store(key, name) }

// Serve answers the questions on subject, each in a goroutine, until stop is
// called, which waits for them. Of all who serve under one queue name, one
// answers; under "" all do. A queue group is for servers whose leafs are trusted:
// one with a wildcard is chosen for questions that it may not even see. At most limit questions are worked on at a time; more wait. A nil
// answer is none.
func (c *Conn) Serve(ctx context.Context, subject, queue string, limit int, f func(Question) *Answer) (stop func(), err error) {
	room, stopped := make(chan struct{}, limit), make(chan struct{})
	unsubscribe, err := c.subscribe(ctx, subject, queue, func(m *nats.Msg) {
		select {
		case room <- struct{}{}:
		case <-stopped:
			return
		}
		go func() {
			defer func() { <-room }()
			a := f(Question{Subject: m.Subject, Reply: m.Reply, Number: m.Header.Get(numberHeader), Data: m.Data})
			if a == nil || m.Reply == "" {
				return
			}
			reply := &nats.Msg{Subject: m.Reply, Data: a.Data, Header: nats.Header{}}
			if a.Status != "" {
				reply.Header.Set(statusHeader, a.Status)
			}
			if a.Number != "" {
				reply.Header.Set(numberHeader, a.Number)
			}
			c.nc.PublishMsg(reply) // an asker who hears nothing asks again
		}()
	})
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		unsubscribe()
		close(stopped)
		for range limit {
			room <- struct{}{} // when all of it is free, nobody works
		}
	}), nil
}

// PushAccount hands an account's JWT to every server of the region that the
// connection, one of the system account, is in. Nil means that one has it on
// disk; each throws out whom it revokes.
func (c *Conn) PushAccount(ctx context.Context, token string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, "$SYS.REQ.CLAIMS.UPDATE", []byte(token))
	if err != nil {
		return fmt.Errorf("push account: %w", unreachable(err))
	}
	var said struct {
		Data *struct {
			Code int `json:"code"`
		} `json:"data"`
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &said); err != nil {
		return fmt.Errorf("push account: %w", err)
	}
	if said.Data == nil || said.Data.Code != 200 {
		why := "no reason given"
		if said.Error != nil {
			why = said.Error.Description
		}
		return fmt.Errorf("push account: refused: %.200q", why)
	}
	return nil
}
