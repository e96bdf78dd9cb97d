// Package client asks a node for decisions over HTTP.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// DefaultTimeout bounds one request when Config has none.
const DefaultTimeout = 10 * time.Second

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// Config is the setting of a Client; the zero field means the default.
type Config struct {
	// Node is the node's base URL, such as http://127.0.0.1:8181.
	Node    string
	Timeout time.Duration
	// Connections is how many idle ones are kept; 0 means 16.
	Connections int
}

// A Client asks one node. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New returns a client, or an error when the node's URL is none.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Node)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("node %q is not a URL such as http://127.0.0.1:8181", cfg.Node)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Connections == 0 {
		cfg.Connections = 16
	}
	return &Client{
		base: strings.TrimRight(cfg.Node, "/"),
		http: &http.Client{Timeout: cfg.Timeout, Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			MaxIdleConns:        cfg.Connections,
			MaxIdleConnsPerHost: cfg.Connections,
			IdleConnTimeout:     time.Minute,
		}},
	}, nil
}

// Close gives back idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// A StatusError is an answer that is no decision: the request was refused
// (4xx) or the node could not answer (5xx).
type StatusError struct {
	Status  int
	Code    string // stable word, "" when the body had none
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("node answered %d %s: %s", e.Status, e.Code, e.Message)
}

// Decide sends body, a request as JSON, to point. The error is a *StatusError
// when the node answered without a decision.
func (c *Client) Decide(ctx context.Context, point string, body []byte) (policy.Answer, error) {
	var a policy.Answer
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/decide/"+url.PathEscape(point), bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	header, err := c.do(req, &a)
	a.Timing = timing(header.Get("Server-Timing"))
	return a, err
}

// Report tells the node what became of a decision, by the names that its answer
// had, and returns the name of the record of that. The error is a *StatusError of
// 404 when the node knows no such decision, and of 503 when it cannot record.
func (c *Client) Report(ctx context.Context, r *policy.Result) (policy.Reported, error) {
	var out policy.Reported
	body, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/results", bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	req.Header.Set("Content-Type", "application/json")
	_, err = c.do(req, &out)
	return out, err
}

// Status asks what is in force on the node.
func (c *Client) Status(ctx context.Context) (policy.Status, error) {
	var s policy.Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/status", nil)
	if err != nil {
		return s, err
	}
	_, err = c.do(req, &s)
	return s, err
}

// pollInterval is how often a node is asked what is in force.
const pollInterval = 2 * time.Millisecond

// WaitInForce asks every node until it says that it enforces the epoch or a
// later one, and returns since when, by the nodes' clocks. The error of an ended
// ctx says what the node said last.
func WaitInForce(ctx context.Context, nodes []string, epoch uint64) ([]time.Time, error) {
	since := make([]time.Time, len(nodes))
	for i, node := range nodes {
		c, err := New(Config{Node: node})
		if err != nil {
			return nil, err
		}
		since[i], err = c.waitInForce(ctx, epoch)
		c.Close()
		if err != nil {
			return nil, err
		}
	}
	return since, nil
}

func (c *Client) waitInForce(ctx context.Context, epoch uint64) (time.Time, error) {
	for {
		st, err := c.Status(ctx)
		if err == nil && st.Epoch >= epoch {
			return st.Since, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("epoch %d is not in force on %s: it has epoch %d; last refusal %q: %w", epoch, c.base, st.Epoch, st.Refused, errors.Join(ctx.Err(), err))
		case <-time.After(pollInterval):
		}
	}
}

// do sends a request and reads the JSON of a 200 into v.
func (c *Client) do(req *http.Request, v any) (http.Header, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode, out)
	}
	if err := json.Unmarshal(out, v); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return resp.Header, nil
}

// timing reads what a node says of itself; what is not there stays zero.
func timing(header string) (t policy.Timing) {
	for _, metric := range strings.Split(header, ",") {
		name, dur, _ := strings.Cut(strings.TrimSpace(metric), ";dur=")
		ms, err := strconv.ParseFloat(dur, 64)
		if err != nil {
			continue
		}
		d := time.Duration(ms * float64(time.Millisecond))
		switch name {
		case "decide":
			t.Decide = d
		case "record":
			t.Record = d
		}
	}
	return t
}

func statusError(status int, body []byte) error {
	var doc struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(body, &doc) != nil || doc.Error.Message == "" {
		doc.Error.Message = strings.TrimSpace(string(body[:min(len(body), 500)]))
	}
	return &StatusError{Status: status, Code: doc.Error.Code, Message: doc.Error.Message}
}
