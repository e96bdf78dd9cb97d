package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Bounds of a webhook.
const (
	webhookQueue   = 1024 // alarms that wait; beyond, the newest is dropped and counted
	webhookTimeout = 5 * time.Second
	webhookFirst   = 250 * time.Millisecond
	webhookLongest = time.Minute
	webhookTries   = 60 // about an hour
)

// A Webhook posts alarms as JSON to a URL, each until it is taken with a 2xx, in
// order, with pauses that double and jitter. A receiver may see an alarm twice;
// its ID and time are then the same.
type Webhook struct {
	url     string
	client  *http.Client
	queue   chan Alarm
	log     *slog.Logger
	dropped atomic.Uint64
	failed  atomic.Uint64
	sent    atomic.Uint64
}

// NewWebhook returns a webhook for an http or https URL. Credentials in the URL
// are sent and never logged.
func NewWebhook(to string, log *slog.Logger) (*Webhook, error) {
	u, err := url.Parse(to)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("webhook: not an http or https URL")
	}
	return &Webhook{
		url: to, log: log.With("webhook", u.Host), queue: make(chan Alarm, webhookQueue),
		client: &http.Client{Timeout: webhookTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Alarm hands an alarm over; it never blocks.
func (w *Webhook) Alarm(a Alarm) {
	select {
	case w.queue <- a:
	default:
		w.dropped.Add(1)
		w.log.Error("alarm dropped: too many are waiting", "id", a.ID)
	}
}

// Counts are the alarms that were delivered, given up after all tries, and
// dropped because too many waited.
func (w *Webhook) Counts() (sent, failed, dropped uint64) {
	return w.sent.Load(), w.failed.Load(), w.dropped.Load()
}

// Run delivers until ctx ends.
func (w *Webhook) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-w.queue:
			w.deliver(ctx, a)
		}
	}
}

func (w *Webhook) deliver(ctx context.Context, a Alarm) {
	body, err := json.Marshal(a)
	if err != nil {
		w.failed.Add(1)
		return
	}
	wait := webhookFirst
	for try := range webhookTries {
		if err = w.post(ctx, body); err == nil {
			w.sent.Add(1)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if try == 0 {
			w.log.Warn("alarm not delivered yet", "id", a.ID, "err", err)
		}
		sleep(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, webhookLongest)
	}
	w.failed.Add(1)
	w.log.Error("alarm given up", "id", a.ID, "err", err)
}

func (w *Webhook) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("not a request")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		// The client's error has the URL in it, which may hold a secret.
		if u, ok := err.(*url.Error); ok {
			err = u.Err
		}
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
