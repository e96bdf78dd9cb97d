package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/ledger/index"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// queryFlags are what records are wanted.
type queryFlags struct {
	from, fleet, region, index, keys   string
	since, until                       string
	node, record, point, code, subject string
	policy, request, trace             string
	verdicts, kinds                    []string
	limit                              uint64
	rebuild, asJSON                    bool
}

func queryCommand(e *env) *cobra.Command {
	var f queryFlags
	c := &cobra.Command{
		Use:   "query",
		Short: "Find records by time, point, verdict, subject, policy, node or name",
		Long: `Find records in --from, the folder of an export or of a region's ledger, or in
the fleet of --dir: in the ledger of --region (default: the first), or in the
nodes' own journals where there are no regions.

All that is given must hold. Records come node by node, boot by boot, in the
order of their seq; -o json writes one JSON object a line. The text has the time,
the record's name, the verdict, point, subject, resource and reason codes.

An index in --index (default: beside the folder, FOLDER.index) says which batches
are worth reading. It is brought up to date first, made again where it is damaged,
and is no evidence: what is shown is read from the batches. With --keys each batch
that is read must prove itself, or is named as damaged. What a record is worth,
"ledger prove" says.

Exit code 0: all batches could be read; 1: some are damaged, and what they hold is
not known.`,
		Example: "  holdfast ledger query --dir ./fleet --verdict deny --since 24h\n  holdfast ledger query --from ./evidence --subject agent:a7 --policy tool-authz -o json\n  holdfast ledger query --from ./evidence --record edge-1/00000001-9f86d081884c7d65/12",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return e.query(c.Context(), &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.from, "from", "", "folder of an export, or of a region's ledger")
	flags.StringVar(&f.fleet, "dir", "", "folder of the fleet")
	flags.StringVar(&f.region, "region", "", "with --dir: in this region's ledger")
	flags.StringVar(&f.index, "index", "", "folder of the index")
	flags.BoolVar(&f.rebuild, "rebuild", false, "make the index again")
	flags.StringVar(&f.keys, "keys", "", "file with public keys: believe only batches that prove themselves")
	flags.StringVar(&f.since, "since", "", "from this time on: RFC 3339, a date, or how long ago, such as 36h")
	flags.StringVar(&f.until, "until", "", "before this time")
	flags.StringVar(&f.node, "node", "", "of this node")
	flags.StringVar(&f.record, "record", "", "the decision or record NODE/BOOT/SEQ")
	flags.StringVar(&f.point, "point", "", "at this decision point")
	flags.StringSliceVar(&f.verdicts, "verdict", nil, "with one of these verdicts")
	flags.StringVar(&f.code, "code", "", "with this reason code")
	flags.StringVar(&f.subject, "subject", "", "of this subject: ID or TYPE:ID")
	flags.StringVar(&f.policy, "policy", "", "asked of this policy: name, package digest or module digest")
	flags.StringVar(&f.request, "request", "", "with this request id")
	flags.StringVar(&f.trace, "trace", "", "with this trace id (32 hexadecimal digits)")
	flags.StringSliceVar(&f.kinds, "kind", nil, "of one of these kinds: decision, activation, boot, admin, result")
	flags.Uint64Var(&f.limit, "limit", 0, "stop after so many; 0 is no limit")
	outputFlag(c, &f.asJSON)
	return c
}

func (e *env) query(ctx context.Context, f *queryFlags) error {
	q, err := f.query(time.Now())
	if err != nil {
		return err
	}
	check, err := f.check()
	if err != nil {
		return err
	}
	folder, done, err := recordsFolder(sources{from: f.from, fleet: f.fleet, region: f.region, node: q.Node})
	if err != nil {
		return err
	}
	defer done()
	x := &index.Index{Folder: audit.Folder{FS: os.DirFS(folder)}, Dir: f.index}
	if x.Dir == "" {
		x.Dir = index.Beside(folder)
	}
	if f.rebuild {
		if err := x.Rebuild(); err != nil {
			return err
		}
	}
	p := newSoFar(e.stderr)
	x.Progress = func(done, of int, _ bool) { p.say("index: %d of %d batches", done, of) }
	stats := index.Stats{}
	err = e.found(f, x.Find(ctx, q, &stats, check), p)
	p.end()
	if err != nil {
		return err
	}
	for _, what := range stats.Damaged {
		fmt.Fprintf(e.stderr, "holdfast: %s\n", what)
	}
	if stats.Unknown > 0 {
		fmt.Fprintf(e.stderr, "holdfast: of %d decisions the activation is not there: which policies were asked is not known\n", stats.Unknown)
	}
	if len(stats.Damaged) > 0 || stats.Unknown > 0 {
		return &exitError{code: exitCheck}
	}
	return nil
}

// found writes what is found, up to the limit.
func (e *env) found(f *queryFlags, hits func(func(*index.Hit, error) bool), p *soFar) (err error) {
	enc := json.NewEncoder(e.stdout)
	out := newPrinter(e.stdout)
	var n uint64
	for h, wrong := range hits {
		if wrong != nil {
			return wrong
		}
		s := show(h.Node, h.Boot, h.Record, h.Leaf[:])
		if p.end(); f.asJSON {
			err = enc.Encode(s)
		} else {
			s.row(out)
			err = out.err
		}
		if n++; err != nil || f.limit > 0 && n == f.limit {
			return err
		}
	}
	return nil
}

// row is a record in one line.
func (s *shown) row(p *printer) {
	name := fmt.Sprintf("%s/%s/%d", s.Node, s.Boot, s.Seq)
	if s.Verdict == "" {
		p.line("%s  %s  %s  %q", s.Time, name, s.Kind, s.Text)
		return
	}
	p.line("%s  %s  %s  %s  %q  %q  %q", s.Time, name, s.Verdict, s.Point, s.Subject, s.Resource, s.codes())
}

// query reads the flags.
func (f *queryFlags) query(now time.Time) (q *index.Query, err error) {
	q = &index.Query{Node: f.node, Point: f.point, Code: f.code, Subject: f.subject, Policy: f.policy, RequestID: f.request}
	if q.From, err = instant("--since", f.since, now); err != nil {
		return nil, err
	}
	if q.To, err = instant("--until", f.until, now); err != nil {
		return nil, err
	}
	for _, name := range f.verdicts {
		v, err := policy.ParseVerdict(name)
		if err != nil {
			return nil, fmt.Errorf("--verdict: %w", err)
		}
		q.Verdicts = append(q.Verdicts, v)
	}
	for _, name := range f.kinds {
		k, err := parseKind(name)
		if err != nil {
			return nil, err
		}
		q.Kinds = append(q.Kinds, k)
	}
	if f.trace != "" {
		if q.Trace, err = hex.DecodeString(f.trace); err != nil || len(q.Trace) != 16 {
			return nil, errors.New("--trace: 32 hexadecimal digits")
		}
	}
	return q, f.named(q)
}

func parseKind(name string) (audit.Kind, error) {
	for k := audit.KindDecision; k <= audit.KindResult; k++ {
		if k.String() == name {
			return k, nil
		}
	}
	return 0, fmt.Errorf("--kind %q: decision, activation, boot, admin or result", name)
}

// named reads --record.
func (f *queryFlags) named(q *index.Query) error {
	if f.record == "" {
		return nil
	}
	parts := strings.Split(f.record, "/")
	if len(parts) != 3 {
		return fmt.Errorf("--record %q is not NODE/BOOT/SEQ", f.record)
	}
	seq, err := strconv.ParseUint(parts[2], 10, 63)
	if err != nil || seq == 0 {
		return fmt.Errorf("--record %q is not NODE/BOOT/SEQ", f.record)
	}
	if f.node != "" && f.node != parts[0] {
		return errors.New("--record and --node name two nodes")
	}
	q.Node, q.Boot, q.Seqs = parts[0], parts[1], audit.Range{From: seq, To: seq}
	return nil
}

// check has batches prove themselves when keys are given.
func (f *queryFlags) check() (func(*audit.Batch) error, error) {
	if f.keys == "" {
		return nil, nil
	}
	keys, err := publicKeys(f.keys, "")
	if err != nil {
		return nil, err
	}
	return func(b *audit.Batch) error {
		key := keys.Node(b.Tenant, b.Node)
		if key == nil {
			return fmt.Errorf("no public key for %s", audit.NodeKeyName(b.Tenant, b.Node))
		}
		_, _, err := b.VerifyFirst(key)
		return err
	}, nil
}

// instant reads a time in nanoseconds since 1970; "" is 0.
func instant(flag, text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UnixNano(), nil
	}
	for _, form := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%s %q: a time such as 2026-11-28T06:00:00Z, a date, or how long ago, such as 36h", flag, text)
}
