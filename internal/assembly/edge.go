// Package assembly wires the planes together, once, for `holdfast up`, for
// holdfastd and for the tests: an Edge is a node with its front door and its
// links to the regions, a Hub is a region.
package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/runtime/serve"
	"github.com/holdfast-policy/holdfast/runtime/serve/opa"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// drainTimeout bounds how long a stopping edge waits for decisions in flight.
const drainTimeout = 5 * time.Second

// ReserveForDisk lets the Go scheduler run two more threads than it would. An
// fsync holds its place in the scheduler until the runtime notices, so that on
// few cores decisions would wait for a disk that they do not need: with two
// cores, p99 at 2,000/s falls by about a tenth. Programs that run edges call it
// first.
func ReserveForDisk() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2) }

// EdgeConfig is all that one edge needs.
type EdgeConfig struct {
	Tenant, Node string
	Dir          string
	// Listen is the address of the HTTP front door; port 0 takes a free one.
	Listen string
	// Worker is the program that compiles policies: engine.Self() in a program
	// whose main begins with engine.Worker(). "" compiles in this process.
	Worker string
	// Compiled is the folder of compiled modules; "" is one in Dir. Edges of one
	// user on one machine may share one.
	Compiled string
	Root     *bundle.TrustRoot
	// Folder is a folder of published releases, for an edge without regions.
	Folder string
	// Regions are where releases come from and records go to; the first is
	// the home region, whose hubs are preferred.
	Regions []RegionLink
	NATS    EdgeNATS
	Journal EdgeJournal
	// Enrolment is the envelope of the node's enrolment, when it is at hand; the
	// regions bring newer ones.
	Enrolment []byte
	// Secret is the file of the tenant's secret; "" has the node make its own in Dir.
	Secret string
	// JournalFS is the seam for failing disks; nil means the operating system's.
	JournalFS journal.FS
	// LogLevel is what the configuration file asks for; SetLogLevel, if set, is
	// called when a reload changes it.
	LogLevel    string
	SetLogLevel func(string)
	Log         *slog.Logger
}

// An Edge is one running node. Close stops it.
type Edge struct {
	node     *edge.Node
	http     *http.Server
	listener net.Listener
	uplink   *uplink // nil without regions
	cancel   context.CancelFunc
	running  sync.WaitGroup
	log      *slog.Logger
	cfg      EdgeConfig
}

// StartEdge opens the node's folder and answers on Listen. It does not wait
// for a release: until there is one, every answer is a denial.
func StartEdge(ctx context.Context, cfg EdgeConfig) (_ *Edge, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	e := &Edge{log: cfg.Log, cfg: cfg}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	nodeConfig := edge.Config{
		Tenant: cfg.Tenant, Name: cfg.Node, Dir: cfg.Dir, Worker: cfg.Worker, Root: cfg.Root, JournalFS: cfg.JournalFS, JournalQuota: cfg.quota(), Log: cfg.Log,
		Enrolment: cfg.Enrolment, Code: cfg.Compiled, Secret: cfg.Secret,
		Alarm: func(kind, text string) { cfg.Log.Error("alarm", "node", cfg.Node, "kind", kind, "text", text) },
	}
	if cfg.Folder != "" {
		nodeConfig.Source = &loader.FolderSource{Dir: cfg.Folder}
	}
	if len(cfg.Regions) > 0 {
		if e.uplink, err = newUplink(ctx, cfg); err != nil {
			return nil, err
		}
		nodeConfig.Source, nodeConfig.Live, nodeConfig.Attest = e.uplink.source, e.uplink.live, e.uplink.source.Attest
		nodeConfig.AwaitEnrolment, nodeConfig.Regions, nodeConfig.Retired = true, e.uplink, e.uplink.retire
	}
	if e.node, err = edge.Open(ctx, nodeConfig); err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	if e.uplink != nil {
		if err = e.uplink.attach(ctx, e.node); err != nil {
			return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
		}
	}
	if e.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	e.run(cfg)
	return e, nil
}

func (e *Edge) run(cfg EdgeConfig) {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.http = serve.NewServer(e.node, serve.Door{Path: "/v1/data", Handler: opa.Handler(e.node)}, serve.Door{Path: "/metrics", Handler: e.metrics()})
	e.http.ErrorLog = slog.NewLogLogger(e.log.Handler(), slog.LevelDebug)
	e.running.Go(func() {
		if err := e.http.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("front door closed", "node", cfg.Node, "err", err)
		}
	})
	e.running.Go(func() {
		if err := e.node.Run(ctx); err != nil {
			e.log.Error("node stopped", "node", cfg.Node, "err", err)
		}
	})
	if e.uplink != nil {
		e.running.Go(func() { _ = e.uplink.shipper.Run(ctx) }) // its error is the context's
		e.running.Go(func() { _ = e.uplink.trimmer.Run(ctx) }) // too
	}
}

// URL is the base URL of the front door.
func (e *Edge) URL() string { return "http://" + e.listener.Addr().String() }

// NATS is where clients beside the edge connect; "" without regions.
func (e *Edge) NATS() string {
	if e.uplink == nil {
		return ""
	}
	return e.uplink.url()
}

// Node is the node itself.
func (e *Edge) Node() *edge.Node { return e.node }

// Ready returns why the node only denies, or nil.
func (e *Edge) Ready() error { return e.node.Ready() }

// Reload reads the configuration again and takes what can change while the edge
// runs: the log level. What needs a restart is an error, and changes nothing.
func (e *Edge) Reload(file string) error {
	next, err := ReadEdgeConfig(file)
	if err != nil {
		return err
	}
	level := next.LogLevel
	have := e.cfg
	for _, c := range []*EdgeConfig{&have, &next} {
		c.LogLevel, c.SetLogLevel, c.Log, c.Worker, c.Enrolment, c.Root = "", nil, nil, "", nil, nil
	}
	if !reflect.DeepEqual(have, next) {
		return errors.New("what changed beside log, trust_root and enrolment needs a restart; roots and enrolments come from the regions")
	}
	if e.cfg.SetLogLevel != nil {
		e.cfg.SetLogLevel(level)
	}
	return nil
}

// Close stops taking requests, lets those in flight finish, waits a bounded time
// for the regions to counter-sign what was answered, writes the closing
// checkpoint and releases the folder.
func (e *Edge) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var errs []error
	if e.http != nil {
		if err := e.http.Shutdown(ctx); err != nil { // somebody is too slow: no answer may outlive the journal
			errs = append(errs, err, e.http.Close())
		}
	} else if e.listener != nil {
		errs = append(errs, e.listener.Close())
	}
	if e.uplink != nil && e.cancel != nil {
		if err := e.uplink.drain(e.node); err != nil {
			e.log.Warn("stopping before every region has every record; the rest is shipped at the next start", "err", err)
		}
	}
	if e.cancel != nil {
		e.cancel()
	}
	e.running.Wait()
	if e.node != nil {
		errs = append(errs, e.node.Close(context.Background()))
	}
	if e.uplink != nil {
		e.uplink.close()
	}
	return errors.Join(errs...)
}
