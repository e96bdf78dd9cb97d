package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/hub"
)

// TestWebhookTriesAgain has a receiver that is broken in three ways before it
// takes alarms: each arrives, in order, and no secret of the URL is logged.
func TestWebhookTriesAgain(t *testing.T) {
	got := make(chan hub.Alarm, 8)
	var mu sync.Mutex
	tries := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		tries++
		try := tries
		mu.Unlock()
		switch try {
		case 1:
			http.Error(w, "not now", http.StatusServiceUnavailable)
		case 2:
			panic(http.ErrAbortHandler) // the connection ends
		case 3:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			var a hub.Alarm
			if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
				t.Error(err)
			}
			got <- a
		}
	}))
	defer receiver.Close()
	var log bytes.Buffer
	w, err := hub.NewWebhook(strings.Replace(receiver.URL, "http://", "http://user:canary-secret@", 1), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	w.Alarm(hub.Alarm{ID: "node_away/a", Kind: hub.AlarmAway, Node: "a"})
	w.Alarm(hub.Alarm{ID: "node_away/a", Kind: hub.AlarmAway, Node: "a", Resolved: true})
	for _, resolved := range []bool{false, true} {
		select {
		case a := <-got:
			if a.ID != "node_away/a" || a.Resolved != resolved {
				t.Errorf("got %+v", a)
			}
		case <-ctx.Done():
			t.Fatal("an alarm was not delivered")
		}
	}
	for sent := uint64(0); sent < 2 && ctx.Err() == nil; sent, _, _ = w.Counts() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if sent, failed, dropped := w.Counts(); sent != 2 || failed != 0 || dropped != 0 {
		t.Errorf("sent %d, failed %d, dropped %d", sent, failed, dropped)
	}
	if strings.Contains(log.String(), "canary-secret") {
		t.Errorf("the URL's secret is in the log:\n%s", log.String())
	}
}

func TestWebhookURL(t *testing.T) {
	for _, bad := range []string{"", "ftp://example.org", "example.org/hook", "http://", "http://user:canary-secret@[::1"} {
		if _, err := hub.NewWebhook(bad, slog.Default()); err == nil || strings.Contains(err.Error(), "canary-secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
