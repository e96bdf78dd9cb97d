package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/replay"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// replayFlags are what a replay is asked.
type replayFlags struct {
	keys, fleet, candidate, list string
	packages, roots              []string
	asJSON                       bool
}

func replayCommand(e *env) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay DIR --keys FILE --packages DIR",
		Short: "Decide every record of an export again",
		Long: `Verify an export and decide every record again, offline.

Each decision is made from the release and the packages that its boot's
activation leaf names by digest, at the instant that its record states, and must
give the same bytes: verdict, reasons, obligations, value, logs, and of each
module the verdict, the fuel and the trap. Counted apart:

  masked      the node left something out before it wrote the record
  erased      what was asked is not there any more
  kill, not_ready   no policy was asked; the record must say a denial for that
  host_error  the node's own failure stood in the way of a module
  unknown     the release or a package is not in --packages

A decision of a stale node is made again with the staleness that its record
states. What a node shed as overload has no record of its own, and an answer
that could not be recorded has none: neither can be replayed.

With --candidate, a release or the draft of one, every decision is made from that
release instead and compared with what was answered: verdict, reason codes,
obligations and value. What would change is listed in --list as JSON lines, and
counted by point, by what becomes of the verdict, and by reason code. Kills and
stale answers are left out: they are not the policies'.

The export is verified as "ledger verify" does it: parts that were erased are damage
unless a --root vouches for who erased them; with --dir, that of the fleet does.

Packages are looked for in each --packages folder, its "packages" and its
"releases"; with --dir in the folder of a fleet. Exit code 0: all the same; 1:
something differs, is unknown, or the export is not complete.`,
		Example: "  holdfast ledger replay ./evidence --dir ./fleet\n  holdfast ledger replay ./evidence --keys public.keys --packages ./published --candidate next.dsse --list changes.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return e.replay(c.Context(), args[0], &f) },
	}
	c.Flags().StringVar(&f.keys, "keys", "", "file with the public keys of nodes and regions (default: those of --dir)")
	c.Flags().StringSliceVar(&f.packages, "packages", nil, "folder with releases (*.dsse) and packages (*.hfp); may be repeated")
	c.Flags().StringArrayVar(&f.roots, "root", nil, "trust root that vouches for erasures (default: that of --dir)")
	c.Flags().StringVar(&f.fleet, "dir", "", "folder of the fleet")
	c.Flags().StringVar(&f.candidate, "candidate", "", "release or draft to decide with instead")
	c.Flags().StringVar(&f.list, "list", "", "file for every decision that differs, as JSON lines; - is standard output")
	outputFlag(c, &f.asJSON)
	return c
}

// replayed is the JSON of `ledger replay`.
type replayed struct {
	Export    string         `json:"export"` // verdict of the verification
	Candidate string         `json:"candidate,omitempty"`
	Replay    *replay.Report `json:"replay"`
	Seconds   float64        `json:"seconds"`
}

func (e *env) replay(ctx context.Context, dir string, f *replayFlags) error {
	keys, err := publicKeys(f.keys, f.fleet)
	if err != nil {
		return err
	}
	if err := errors.Join(exportFolder(dir), believe(keys, f.roots, f.fleet)); err != nil {
		return err
	}
	cfg, list, err := e.replayConfig(f)
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, engine.Config{Worker: engine.Self(), Cache: codeDir()})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	cfg.Engine = eng
	began := time.Now()
	out := replayed{}
	if cfg.Candidate != nil {
		out.Candidate = cfg.Candidate.Digest.String()
	}
	out.Export, out.Replay, err = e.replayFolder(ctx, dir, keys, cfg)
	if err = errors.Join(err, list.close()); err != nil {
		return err
	}
	out.Seconds = time.Since(began).Seconds()
	if f.asJSON {
		err = json.NewEncoder(e.stdout).Encode(out)
	} else {
		err = printReplay(e, &out)
	}
	if err == nil && (!out.Replay.Equal() || out.Export != audit.VerdictComplete) {
		return &exitError{code: exitCheck}
	}
	return err
}

// replayConfig finds packages, the candidate, and where differences go.
func (e *env) replayConfig(f *replayFlags) (cfg replay.Config, list *lines, err error) {
	folders := slices.Clone(f.packages)
	if f.fleet != "" {
		l := assembly.Layout{Dir: f.fleet}
		folders = append(folders, l.Published())
		stores, _ := filepath.Glob(filepath.Join(l.Node("*"), "store")) // the pattern is well formed
		folders = append(folders, stores...)
	}
	if f.candidate != "" {
		if cfg.Candidate, err = replay.ReadRelease(f.candidate); err != nil {
			return cfg, nil, err
		}
		folders = append(folders, filepath.Dir(f.candidate)) // where a draft has its packages
	}
	if len(folders) == 0 {
		return cfg, nil, errors.New("which packages? give --packages, a folder with releases and packages, or --dir, that of a fleet")
	}
	if cfg.Packages, err = replay.FindPackages(folders...); err != nil {
		return cfg, nil, err
	}
	if list, err = e.openLines(f.list); err == nil && list != nil {
		cfg.Different = func(d *replay.Difference) { list.write(d) }
	}
	return cfg, list, err
}

// replayFolder verifies the export and replays what is proven.
func (e *env) replayFolder(ctx context.Context, dir string, keys *audit.Keys, cfg replay.Config) (verdict string, _ *replay.Report, err error) {
	r, err := replay.New(ctx, cfg)
	if err != nil {
		return "", nil, err
	}
	report, err := verifyFolder(ctx, e, dir, keys, audit.Options{Records: func(p audit.Proven) {
		_ = r.Records(ctx, p.Node, p.Boot, p.Records) // its error is that of ctx, which ends the verification
	}})
	replayed, closeErr := r.Close(context.WithoutCancel(ctx))
	if err = errors.Join(err, closeErr); err != nil {
		return "", nil, err
	}
	return report.Verdict, replayed, nil
}

func printReplay(e *env, out *replayed) error {
	p, r := newPrinter(e.stdout), out.Replay
	p.line("export: %s", out.Export)
	same, differs := "gave the same bytes", "differ"
	if out.Candidate != "" {
		p.line("candidate: %s", out.Candidate)
		same, differs = "stay as they are", "would change"
	}
	p.line("%d decisions in %.1f s: %d %s, %d %s, %d masked, %d erased, %d unknown",
		r.Decisions, out.Seconds, r.Exact, same, r.Different, differs, r.Masked, r.Erased, r.Unknown)
	for _, as := range slices.Sorted(maps.Keys(r.Judged)) {
		p.line("  no policy decided (%s): %d", as, r.Judged[as])
	}
	table := func(title string, counts map[string]uint64) {
		for _, k := range slices.Sorted(maps.Keys(counts)) {
			p.line("  %-8s %-40s %d", title, k, counts[k])
		}
	}
	table("verdict", r.Verdicts)
	table("point", r.Points)
	for _, code := range slices.Sorted(maps.Keys(r.Rules)) {
		p.line("  %-8s %-40s new in %d, gone from %d", "rule", code, r.Rules[code].New, r.Rules[code].Gone)
	}
	table("what", r.What)
	for _, problem := range r.Problems {
		p.line("%s %s", p.red("!"), problem)
	}
	switch left := r.Masked + r.Erased; {
	case !r.Equal():
		p.line("replay: %s", p.red("not equal"))
	case left == 0:
		p.line("replay: %s", p.green("equal"))
	case left == r.Decisions:
		p.line("replay: no decision could be made again")
	default:
		p.line("replay: %s, but for %d of %d decisions, which could not be made again", p.green("equal"), left, r.Decisions)
	}
	return p.err
}

// lines writes values as JSON lines to a file; nil writes nothing.
type lines struct {
	enc   *json.Encoder
	file  *os.File // nil for standard output
	wrong error
}

func (e *env) openLines(path string) (*lines, error) {
	switch path {
	case "":
		return nil, nil
	case "-":
		return &lines{enc: json.NewEncoder(e.stdout)}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--list: %w", err)
	}
	return &lines{enc: json.NewEncoder(f), file: f}, nil
}

func (l *lines) write(v any) {
	if l.wrong == nil {
		l.wrong = l.enc.Encode(v)
	}
}

func (l *lines) close() error {
	if l == nil {
		return nil
	}
	if l.file != nil {
		l.wrong = errors.Join(l.wrong, l.file.Close())
	}
	return l.wrong
}
