// Command holdfastd is the daemon: `holdfastd edge` is a node, `holdfastd hub`
// a region.
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
	"syscall"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

const usage = `holdfastd runs one part of a Holdfast fleet.

  holdfastd edge --config FILE [--check]   a node: decides, records, ships
  holdfastd hub  --config FILE [--check]   a region: distributes releases, keeps the ledger

--check reads the configuration, says what is wrong with it, and starts nothing.
Exit codes: 0 stopped by a signal, or the configuration is good; 1 it did not
start; 2 bad usage or configuration. The files are described in
internal/assembly/config.go.

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
	if len(args) == 0 || (args[0] != "edge" && args[0] != "hub") {
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
	log := slog.New(slog.NewTextHandler(stderr, nil))
	start := startEdge
	if args[0] == "hub" {
		start = startHub
	}
	return serve(ctx, stdout, stderr, *config, *check, log, start)
}

// A starter reads a configuration and, unless check is set, starts what it
// describes; the words say where it answers.
type starter func(ctx context.Context, file string, check bool, log *slog.Logger) (running io.Closer, words string, err error)

func serve(ctx context.Context, stdout, stderr io.Writer, file string, check bool, log *slog.Logger, start starter) int {
	running, words, err := start(ctx, file, check, log)
	var config *assembly.ConfigError
	switch {
	case errors.As(err, &config):
		fmt.Fprintf(stderr, "holdfastd: %v\n", err)
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "holdfastd: %v\n", err)
		return 1
	}
	fmt.Fprintln(stdout, words)
	if check {
		return 0
	}
	<-ctx.Done()
	if err := running.Close(); err != nil {
		fmt.Fprintf(stderr, "holdfastd: %v\n", err)
		return 1
	}
	return 0
}

func startEdge(ctx context.Context, file string, check bool, log *slog.Logger) (io.Closer, string, error) {
	cfg, err := assembly.ReadEdgeConfig(file)
	if err != nil || check {
		return nil, file + ": good", err
	}
	cfg.Worker, cfg.Log = engine.Self(), log
	assembly.ReserveForDisk()
	e, err := assembly.StartEdge(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	return e, fmt.Sprintf("node %s answers on %s (its line in public.keys: node %s)", cfg.Node, e.URL(), e.Node().VerifierKey()), nil
}

func startHub(ctx context.Context, file string, check bool, log *slog.Logger) (io.Closer, string, error) {
	cfg, err := assembly.ReadHubConfig(file)
	if err != nil || check {
		return nil, file + ": good", err
	}
	cfg.Log = log
	h, err := assembly.StartHub(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	return h, fmt.Sprintf("region %s: clients %s, leaf nodes %s", cfg.Region, h.Server().ClientURL(), h.Server().LeafAddr()), nil
}
