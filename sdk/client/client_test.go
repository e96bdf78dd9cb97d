package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func serve(t *testing.T, handler http.HandlerFunc) (*client.Client, string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := client.New(client.Config{Node: server.URL + "/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, server.URL
}

func TestDecide(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.EscapedPath() != "/v1/decide/a%2Fb" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %v", r.Method, r.URL.EscapedPath(), r.Header)
		}
		w.Header().Set("Server-Timing", "decide;dur=1.5, other, record;dur=0.25")
		fmt.Fprint(w, `{"decision":true,"verdict":"allow","durability":"synced","recorded":true}`)
	})
	a, err := c.Decide(context.Background(), "a/b", []byte(`{}`))
	if err != nil || a.Verdict != policy.Allow || a.Timing.Decide != 1500*time.Microsecond || a.Timing.Record != 250*time.Microsecond {
		t.Errorf("%+v, %v", a, err)
	}
}

// Whatever is not a 200 with an answer is an error, never a decision.
func TestNoDecisionIsAnError(t *testing.T) {
	for body, status := range map[string]int{
		`{"decision":true,"verdict":"allow","durability":"synced","recorded":true}`: 503,
		`{"error":{"code":"unknown_point","message":"m"}}`:                          404,
		`<html>`: 502,
	} {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
		a, err := c.Decide(context.Background(), "custom", nil)
		var se *client.StatusError
		if !errors.As(err, &se) || se.Status != status || se.Message == "" || a.Verdict.Permits() {
			t.Errorf("%d %s: %+v, %v", status, body, a, err)
		}
	}
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"decision":true,"verdict":"deny","durability":"none"}`)
	})
	if a, err := c.Decide(context.Background(), "custom", nil); err == nil || a.Verdict.Permits() {
		t.Errorf("a contradiction: %+v, %v", a, err)
	}
}

// A lower epoch is not the one that is waited for.
func TestWaitInForce(t *testing.T) {
	var epoch int
	_, url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		epoch++
		fmt.Fprintf(w, `{"epoch":%d,"since":"2026-01-0%dT00:00:00Z"}`, epoch, epoch)
	})
	since, err := client.WaitInForce(context.Background(), []string{url}, 3)
	if err != nil || len(since) != 1 || since[0].Day() != 3 {
		t.Errorf("%v, %v", since, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.WaitInForce(ended, []string{url}, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for what never comes: %v", err)
	}
}

func TestNewRefusesWhatIsNoURL(t *testing.T) {
	for _, node := range []string{"", "127.0.0.1:80", "ftp://x", "http://"} {
		if _, err := client.New(client.Config{Node: node}); err == nil {
			t.Errorf("%q was taken", node)
		}
	}
}
