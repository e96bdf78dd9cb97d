// Package natsapi is a node's front door over NATS, for the workloads on the
// node's own server:
//
//	hf.TENANT.ask.POINT   a request as JSON in, an answer as JSON out
//
// A workload's client must have the prefix _INBOX.workload.USER for its inboxes.
// What is no decision is answered with the status "error" and a body
// {"error": {code, message, ...}}, the same as over HTTP.
package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A Decider answers requests, as that of package serve.
type Decider interface {
	Decide(context.Context, *policy.Request) (policy.Answer, error)
}

// StatusError is the status of an answer that is no decision.
const StatusError = "error"

// queue is one for all nodes that share a server: one of them answers.
const queue = "ask"

// maxAtOnce bounds the questions that are worked on at a time.
const maxAtOnce = 256

// Serve answers from d until stop is called, which waits for what is in flight.
func Serve(ctx context.Context, conn *bus.Conn, tenant string, d Decider) (stop func(), err error) {
	prefix := "hf." + tenant + ".ask."
	stop, err = conn.Serve(ctx, prefix+">", queue, maxAtOnce, func(q bus.Question) *bus.Answer {
		return answer(d, strings.TrimPrefix(q.Subject, prefix), q.Data)
	})
	if err != nil {
		return nil, fmt.Errorf("answer over the bus: %w", err)
	}
	return stop, nil
}

func answer(d Decider, point string, body []byte) *bus.Answer {
	req, err := policy.ParseRequest(point, body)
	if err != nil {
		return fail("malformed_request", err)
	}
	a, err := d.Decide(context.Background(), req)
	switch {
	case errors.Is(err, policy.ErrUnknownPoint):
		return fail("unknown_point", err)
	case err != nil:
		return fail("internal_error", err)
	}
	out, err := a.MarshalJSON()
	if err != nil {
		return fail("internal_error", err)
	}
	return &bus.Answer{Data: out}
}

func fail(code string, err error) *bus.Answer {
	detail := map[string]any{"code": code, "message": err.Error()}
	var se *policy.SyntaxError
	if errors.As(err, &se) {
		detail["line"], detail["column"], detail["offset"], detail["pointer"] = se.Line, se.Col, se.Offset, se.Pointer
	}
	body, err := json.Marshal(map[string]any{"error": detail})
	if err != nil {
		return &bus.Answer{Status: StatusError}
	}
	return &bus.Answer{Status: StatusError, Data: body}
}
