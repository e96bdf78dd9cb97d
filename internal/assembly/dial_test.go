package assembly

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// shy is a server that refuses its first clients.
type shy struct {
	*embed.Server
	refuse int
}

func (s *shy) InProcessConn() (net.Conn, error) {
	if s.refuse--; s.refuse >= 0 {
		return nil, errors.New("not yet")
	}
	return s.Server.InProcessConn()
}

// A server that does not take its own part at first is asked again, not for ever.
func TestDialsAgain(t *testing.T) {
	dir := t.TempDir()
	a, err := auth.Create(filepath.Join(dir, "auth"), "bank")
	if err == nil {
		err = a.AddTenant("acme", auth.Limits{})
	}
	if err != nil {
		t.Fatal(err)
	}
	trust, err := a.Trust()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue("acme", "eu", auth.Hub("acme", "eu"), time.Hour)
	creds := filepath.Join(dir, "hub.creds")
	if err == nil {
		err = c.WriteFile(creds)
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := embed.Hub(t.Context(), embed.HubConfig{Region: "eu", Name: "eu", Dir: filepath.Join(dir, "nats"), Trust: trust, Host: "127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	for refuse, works := range map[int]bool{0: true, dials - 1: true, dials: false} {
		conn, err := dial(t.Context(), bus.Config{Server: &shy{server, refuse}, Creds: creds, Name: "hub eu", Log: slog.New(slog.DiscardHandler)})
		if (err == nil) != works {
			t.Errorf("refused %d times: %v", refuse, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
