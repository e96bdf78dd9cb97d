package assembly_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/client"
)

// A region that is cut away gets nothing while decisions go on, and everything
// once it is healed.
func TestCutAndHeal(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: 2, Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	if err := fleet.WaitCosigned(ctx); err != nil {
		t.Fatal(err)
	}
	if err := fleet.Cut("us"); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Node: fleet.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a, err := c.Decide(ctx, "custom", []byte(`{"document":1}`)); err != nil || !a.Recorded {
		t.Fatalf("while a region is away: %+v, %v", a, err)
	}
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if err := fleet.WaitCosigned(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "region us") {
		t.Errorf("a region that is cut away counter-signed: %v", err)
	}
	if err := fleet.Heal("us"); err != nil {
		t.Fatal(err)
	}
	if err := fleet.WaitCosigned(ctx); err != nil {
		t.Errorf("after healing: %v", err)
	}
	if fleet.Cut("nowhere") == nil {
		t.Error("a region that does not exist was cut away")
	}
}
