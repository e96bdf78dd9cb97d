// Command holdfastd is the daemon: `holdfastd edge` is a node, `holdfastd hub`
// a region, `holdfastd witness` counter-signs outside of the regions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

const usage = `holdfastd runs one part of a Holdfast fleet.

  holdfastd edge --config FILE [--check]   a node: decides, records, ships
  holdfastd hub  --config FILE [--check]   a region: distributes releases, keeps the ledger
  holdfastd witness --config FILE [--check]   counter-signs what the regions' ledgers have

--check reads the configuration, says what is wrong with it, and starts nothing.
deploy/edge.yaml, hub.yaml and witness.yaml have every key. SIGHUP reads the configuration
again and takes what can change while it runs (log, alarms); the rest it names.
SIGTERM drains: what is in flight is answered, what is recorded is shipped.
Under systemd (Type=notify) it is ready when /readyz is.
Exit codes: 0 stopped by a signal, or the configuration is good; 1 it did not
start; 2 bad usage or configuration.

Example: holdfastd edge --config edge.yaml
`

func main() {
	engine.Worker()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program; tests call it.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(stdout, usage)
		return 0
	}
	if len(args) == 0 || (args[0] != "edge" && args[0] != "hub" && args[0] != "witness") {
		fmt.Fprint(stderr, usage)
		return 2
	}
	flags := flag.NewFlagSet("holdfastd "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	config := flags.String("config", "", "configuration file")
	check := flags.Bool("check", false, "only read the configuration")
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *config == "" || flags.NArg() > 0 {
		fmt.Fprintf(stderr, "holdfastd: give --config FILE and nothing else\n\n%s", usage)
		return 2
	}
	d := &daemon{file: *config, stdout: stdout, stderr: stderr}
	d.log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: &d.level}))
	d.start = d.edge
	switch args[0] {
	case "hub":
		d.start = d.hub
	case "witness":
		d.start = d.witness
	}
	return d.run(ctx, *check)
}

// A daemon is one part of a fleet while it runs.
type daemon struct {
	file           string
	stdout, stderr io.Writer
	level          slog.LevelVar
	log            *slog.Logger
	// start reads the configuration and, unless check is set, starts what it
	// describes; the words say where it answers.
	start func(ctx context.Context, check bool) (running part, words string, err error)
}

// A part is what runs.
type part interface {
	io.Closer
	// Ready returns why it cannot do its work yet, or nil.
	Ready() error
	// Reload reads the configuration again.
	Reload(file string) error
}

func (d *daemon) run(ctx context.Context, check bool) int {
	running, words, err := d.start(ctx, check)
	var config *assembly.ConfigError
	switch {
	case errors.As(err, &config):
		fmt.Fprintf(d.stderr, "holdfastd: %v\n", err)
		return 2
	case err != nil:
		fmt.Fprintf(d.stderr, "holdfastd: %v\n", err)
		return 1
	}
	fmt.Fprintln(d.stdout, words)
	if check {
		return 0
	}
	d.serve(ctx, running)
	d.notify(systemd.SdNotifyStopping)
	if err := running.Close(); err != nil {
		fmt.Fprintf(d.stderr, "holdfastd: %v\n", err)
		return 1
	}
	return 0
}

// readyEvery is how often systemd is told, until it is ready.
const readyEvery = 100 * time.Millisecond

// serve tells systemd when the part is ready and reloads on SIGHUP, until ctx ends.
func (d *daemon) serve(ctx context.Context, running part) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			d.reload(running)
		case <-tick.C:
			if err := running.Ready(); err != nil {
				// A node may wait long for its first release: that is no failed start.
				d.notify("EXTEND_TIMEOUT_USEC=10000000\nSTATUS=" + err.Error())
				continue
			}
			d.notify(systemd.SdNotifyReady + "\nSTATUS=ready")
			tick.Stop()
		}
	}
}

func (d *daemon) reload(running part) {
	d.notify(systemd.SdNotifyReloading)
	if err := running.Reload(d.file); err != nil {
		d.log.Error("configuration not reloaded; the one before stays", "err", err)
	} else {
		d.log.Info("configuration reloaded")
	}
	d.notify(systemd.SdNotifyReady)
}

// notify tells systemd, if it asked to be told.
func (d *daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Debug("systemd was not told", "err", err)
	}
}

// setLevel takes the log level of a configuration.
func (d *daemon) setLevel(word string) {
	_ = d.level.UnmarshalText([]byte(word)) // the configuration has been checked
}

func (d *daemon) edge(ctx context.Context, check bool) (part, string, error) {
	cfg, err := assembly.ReadEdgeConfig(d.file)
	if err != nil || check {
		return nil, d.file + ": good", err
	}
	d.setLevel(cfg.LogLevel)
	cfg.Worker, cfg.Log, cfg.SetLogLevel = engine.Self(), d.log, d.setLevel
	assembly.ReserveForDisk()
	e, err := assembly.StartEdge(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	return e, fmt.Sprintf("node %s answers on %s (its line in public.keys: node %s)", cfg.Node, e.URL(), e.Node().VerifierKey()), nil
}

func (d *daemon) hub(ctx context.Context, check bool) (part, string, error) {
	cfg, err := assembly.ReadHubConfig(d.file)
	if err != nil || check {
		return nil, d.file + ": good", err
	}
	d.setLevel(cfg.LogLevel)
	cfg.Log, cfg.SetLogLevel = d.log, d.setLevel
	h, err := assembly.StartHub(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	where := "a client of " + strings.Join(cfg.URLs, ", ")
	if s := h.Server(); s != nil {
		where = fmt.Sprintf("clients %s, leaf nodes %s", s.ClientURL(), s.LeafAddr())
	}
	if h.URL() != "" {
		where += ", operations " + h.URL()
	}
	return h, fmt.Sprintf("region %s: %s", cfg.Region, where), nil
}

func (d *daemon) witness(ctx context.Context, check bool) (part, string, error) {
	cfg, err := assembly.ReadWitnessConfig(d.file)
	if err != nil || check {
		return nil, d.file + ": good", err
	}
	d.setLevel(cfg.LogLevel)
	cfg.Log, cfg.SetLogLevel = d.log, d.setLevel
	w, err := assembly.StartWitness(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	return w, fmt.Sprintf("witness %s of regions %s (its line in public.keys: witness %s)", cfg.Name, strings.Join(cfg.Regions, ", "), w.VerifierKey()), nil
}
