package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/control/ledger/index"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// whatStays is what an erasure leaves, and where, for how long.
const whatStays = `What stays, and where:
  in the leaves, for ever: point, request id, subject, action, resource, verdict, reasons,
    obligations and what the request stated of itself; masks in the release keep these out
    of what is to come;
  in a node's journal: the parts, until the node trims what the regions have (at most its quota);
  in NATS: messages that were removed before, until their block is compacted; in a region of
    several servers the consensus log, until it is compacted;
  on the disks: what the file systems have not reused; and in backups and exports.`

// dataFlags are those of every document about records.
type dataFlags struct {
	which                fleetFlags
	reason, file, tenant string
	keys                 []string
	asJSON               bool
}

func (f *dataFlags) add(c *cobra.Command, keys string) {
	f.which.add(c)
	c.Flags().StringVar(&f.reason, "reason", "", "why, for people and the record; no personal data: it stays")
	c.Flags().StringArrayVar(&f.keys, "key", nil, "private key of role "+keys+". A laptop's fleet (--dir) has its own")
	c.Flags().StringVar(&f.file, "file", "", "write the signed document into a file instead of sending it")
	c.Flags().StringVar(&f.tenant, "tenant", "", "with --file: the tenant")
	outputFlag(c, &f.asJSON)
	_ = c.MarkFlagRequired("reason") // there is such a flag
}

// signers reads the keys, or takes those of a laptop's fleet.
func (f *dataFlags) signers(names ...string) ([]*bundle.PrivateKey, error) {
	k := killFlags{keys: f.keys}
	keys, err := k.signers(&f.which, names...)
	if len(f.keys) == 0 && err != nil {
		return nil, errors.New("give --key, a private key of role data")
	}
	return keys, err
}

// send writes signed documents into files, or hands them to the hubs. It returns
// their digests.
func (e *env) send(ctx context.Context, f *dataFlags, sign func(tenant string) ([][]byte, error)) (digests []wire.Digest, err error) {
	if f.file != "" {
		if f.tenant == "" {
			return nil, errors.New("with --file, give --tenant")
		}
		envelopes, err := sign(f.tenant)
		for i, env := range envelopes {
			path := f.file
			if i > 0 {
				path += "." + strconv.Itoa(i+1)
			}
			if err == nil {
				err = writeFresh(path, env)
			}
			if err == nil {
				fmt.Fprintf(e.stderr, "wrote %s\n", path)
			}
		}
		return nil, err
	}
	admin, err := f.which.admin(ctx)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	envelopes, err := sign(admin.Tenant())
	if err != nil {
		return nil, err
	}
	for _, env := range envelopes {
		d, err := admin.PutData(ctx, env)
		if err != nil {
			return digests, &exitError{code: exitCheck, err: err}
		}
		digests = append(digests, d)
	}
	return digests, nil
}

// eraseFlags are those of ledger erase.
type eraseFlags struct {
	dataFlags
	from, region                  string
	records                       []string
	subject, request, point, node string
	since, until                  string
	requestedBy                   string
	yes                           bool
	wait                          time.Duration

	// What was chosen: when, which records, and what they hold as far as it was seen.
	fromTime, toTime int64
	selected         map[audit.Place][]audit.Range
	seen             []*index.Hit
}

func eraseCommand(e *env) *cobra.Command {
	var f eraseFlags
	c := &cobra.Command{
		Use:   "erase",
		Short: "Take the requests, values and logs of records out of every ledger, provably",
		Long: `Erase takes the parts of records - requests, values and logs - and their keys out of the ledgers of all regions. The records' leaves
stay, so that everything is proven as before; "ledger verify" names what was erased, and by which document.

Records are named exactly (--record NODE/BOOT/SEQ or NODE/BOOT/FROM-TO), or selected: by subject, request id, point, node and time, in the
ledger of the fleet in --dir or in the export or ledger in --from. What is named but not there is refused: an erasure holds for what comes
after it, too. What was selected is shown, and signed record by record, when it is
asked for with --yes. Records under a hold are not erased. One person of role data signs.

` + whatStays,
		Example: `  holdfast ledger erase --dir ./fleet --subject user:ada --reason "Art. 17" --requested-by DSR-7
  holdfast ledger erase --dir ./fleet --subject user:ada --reason "Art. 17" --requested-by DSR-7 --yes
  holdfast ledger erase --context bank --from ./evidence --request 0193-7f2c --reason "sent by mistake" --key data.key --yes`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return e.erase(c.Context(), &f) },
	}
	f.add(c, "data")
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "folder of an export or ledger in which records are selected")
	fl.StringVar(&f.region, "region", "", "with --dir: select in this region's ledger")
	fl.StringArrayVar(&f.records, "record", nil, "these records: NODE/BOOT/SEQ or NODE/BOOT/FROM-TO")
	fl.StringVar(&f.subject, "subject", "", "decisions about this subject: ID or TYPE:ID")
	fl.StringVar(&f.request, "request", "", "decisions with this request id")
	fl.StringVar(&f.point, "point", "", "decisions at this point")
	fl.StringVar(&f.node, "node", "", "decisions of this node")
	fl.StringVar(&f.since, "since", "", "from this time on: RFC 3339, a date, or how long ago, such as 36h")
	fl.StringVar(&f.until, "until", "", "before this time")
	fl.StringVar(&f.requestedBy, "requested-by", "", "who asked, such as the number of a request; not a person's name: it stays")
	fl.BoolVar(&f.yes, "yes", false, "erase what is shown without it")
	fl.DurationVar(&f.wait, "wait", 10*time.Second, "with --dir: how long to wait until the regions have erased")
	return c
}

func (e *env) erase(ctx context.Context, f *eraseFlags) error {
	if err := f.choose(ctx); err != nil {
		return err
	}
	if len(f.selected) == 0 {
		return checkFailed("no record with a request, value or log is what was asked for: nothing is erased")
	}
	if f.file == "" {
		if err := f.checkHolds(ctx); err != nil {
			return err
		}
	}
	if !f.yes {
		return e.showSelected(f)
	}
	keys, err := f.signers("data")
	if err != nil {
		return err
	}
	digests, err := e.send(ctx, &f.dataFlags, func(tenant string) (out [][]byte, err error) {
		for _, doc := range f.documents(tenant) {
			env, err := bundle.SignErasure(&doc, keys...)
			if err != nil {
				return nil, err
			}
			out = append(out, env)
		}
		return out, nil
	})
	if err != nil || f.file != "" {
		return err
	}
	return e.erasedEverywhere(ctx, f, digests)
}

// choose fills in which records are meant.
func (f *eraseFlags) choose(ctx context.Context) (err error) {
	f.selected = map[audit.Place][]audit.Range{}
	selecting := len(given(f.subject, f.request, f.point, f.node, f.since, f.until)) > 0
	if selecting == (len(f.records) > 0) {
		return errors.New("which records? give --record, or some of --subject, --request, --point, --node, --since and --until")
	}
	now := time.Now()
	if f.fromTime, err = instant("--since", f.since, now); err != nil {
		return err
	}
	if f.toTime, err = instant("--until", f.until, now); err != nil {
		return err
	}
	for _, r := range f.records {
		if err := f.exactly(r); err != nil {
			return err
		}
	}
	src := sources{from: f.from, region: f.region}
	if f.from == "" {
		src.fleet = f.which.dir
	}
	if src.from == "" && src.fleet == "" {
		if selecting {
			return errors.New("where are the records to select from? give --from, the folder of an export, or --dir")
		}
		return nil // the ledgers look themselves
	}
	folder, done, err := recordsFolder(src)
	if err != nil {
		return err
	}
	defer done()
	return f.find(ctx, folder, selecting)
}

// exactly reads NODE/BOOT/SEQ or NODE/BOOT/FROM-TO.
func (f *eraseFlags) exactly(text string) error {
	wrong := fmt.Errorf("--record %q is not NODE/BOOT/SEQ or NODE/BOOT/FROM-TO", text)
	parts := strings.Split(text, "/")
	if len(parts) != 3 || !audit.ValidName(parts[0]) {
		return wrong
	}
	if _, _, err := audit.ParseBootID(parts[1]); err != nil {
		return wrong
	}
	first, last, ranged := strings.Cut(parts[2], "-")
	if !ranged {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 62)
	to, err2 := strconv.ParseUint(last, 10, 62)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return wrong
	}
	at := audit.Place{Node: parts[0], Boot: parts[1]}
	f.selected[at] = audit.Union(append(f.selected[at], audit.Range{From: from, To: to}))
	return nil
}

// find looks at the records: selects them, or has a look at those that are named.
func (f *eraseFlags) find(ctx context.Context, folder string, selecting bool) error {
	x := &index.Index{Folder: audit.Folder{FS: os.DirFS(folder)}, Dir: index.Beside(folder)}
	queries := []*index.Query{{
		Node: f.node, From: f.fromTime, To: f.toTime, Kinds: []audit.Kind{audit.KindDecision}, Point: f.point, Subject: f.subject, RequestID: f.request,
	}}
	if !selecting {
		queries = nil
		for at, ranges := range f.selected {
			for _, r := range ranges {
				queries = append(queries, &index.Query{Node: at.Node, Boot: at.Boot, Seqs: r})
			}
		}
	}
	for _, q := range queries {
		var stats index.Stats
		var there uint64
		for h, err := range x.Find(ctx, q, &stats, nil) {
			if err != nil {
				return err
			}
			there++
			if parts := h.Record.Parts(); len(parts) > 0 {
				f.seen = append(f.seen, h)
			}
		}
		if len(stats.Damaged) > 0 {
			return checkFailed("what some batches hold is not known, so that records could be left out: %s", strings.Join(stats.Damaged, "; "))
		}
		if named := q.Seqs.To - q.Seqs.From + 1; !selecting && there != named {
			return checkFailed("of the records %s of %s/%s, %d are not in %s: nothing is erased", q.Seqs, q.Node, q.Boot, named-there, folder)
		}
	}
	if selecting {
		for _, h := range f.seen {
			at := audit.Place{Node: h.Node, Boot: h.Boot}
			f.selected[at] = append(f.selected[at], audit.Range{From: h.Record.Seq, To: h.Record.Seq})
		}
	}
	for at, ranges := range f.selected {
		f.selected[at] = audit.Union(ranges)
	}
	return nil
}

// checkHolds refuses what a hold keeps; the ledgers do so as well.
func (f *eraseFlags) checkHolds(ctx context.Context) error {
	admin, err := f.which.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	state, err := admin.Read(ctx)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	for _, h := range state.Fleet.Holds() {
		hold := assembly.HoldOf(h)
		for _, hit := range f.seen {
			if hold.Covers(hit.Node, hit.Record) {
				return checkFailed("record %d of %s/%s is under hold %s (%s; %s): nothing is erased; two persons end a hold with `holdfast ledger release-hold`",
					hit.Record.Seq, hit.Node, hit.Boot, h.ID, h.Scope, h.Digest.Hex())
			}
		}
	}
	return nil
}

// places are the boots of which records are selected, in order.
func (f *eraseFlags) places() []audit.Place {
	out := make([]audit.Place, 0, len(f.selected))
	for at := range f.selected {
		out = append(out, at)
	}
	slices.SortFunc(out, func(a, b audit.Place) int {
		return strings.Compare(a.Node+"/"+a.Boot, b.Node+"/"+b.Boot)
	})
	return out
}

// documents are as many erasures as it takes.
func (f *eraseFlags) documents(tenant string) (out []bundle.Erasure) {
	now := time.Now().UnixNano()
	next := func() {
		now++ // two documents of one moment differ
		out = append(out, bundle.Erasure{Tenant: tenant, Reason: f.reason, RequestedBy: f.requestedBy, Created: now})
	}
	next()
	ranges := 0
	for _, at := range f.places() {
		left := f.selected[at]
		for len(left) > 0 {
			doc := &out[len(out)-1]
			if ranges == bundle.MaxErasedRanges || len(doc.Records) == bundle.MaxErasedBoots {
				next()
				ranges, doc = 0, &out[len(out)-1]
			}
			n := min(len(left), bundle.MaxErasedRanges-ranges)
			r := bundle.ErasedRecords{Node: at.Node, Boot: at.Boot}
			for _, x := range left[:n] {
				r.Ranges = append(r.Ranges, [2]uint64{x.From, x.To})
			}
			doc.Records = append(doc.Records, r)
			left, ranges = left[n:], ranges+n
		}
	}
	return out
}

func (f *eraseFlags) count() (n uint64) {
	for _, ranges := range f.selected {
		for _, r := range ranges {
			n += r.To - r.From + 1
		}
	}
	return n
}

// erasedJSON is the output of ledger erase.
type erasedJSON struct {
	Records   []erasedRecords `json:"records"`
	Count     uint64          `json:"count"`
	Documents []string        `json:"documents"` // none: nothing was erased
	Regions   []erasedRegion  `json:"regions,omitempty"`
	Stays     string          `json:"stays"`
}

type erasedRecords struct {
	Node   string        `json:"node"`
	Boot   string        `json:"boot"`
	Ranges []audit.Range `json:"ranges"`
}

type erasedRegion struct {
	Region string `json:"region"`
	// State is erased, waiting or refused.
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

func (f *eraseFlags) json() erasedJSON {
	out := erasedJSON{Count: f.count(), Documents: []string{}, Stays: whatStays}
	for _, at := range f.places() {
		out.Records = append(out.Records, erasedRecords{at.Node, at.Boot, f.selected[at]})
	}
	return out
}

func (e *env) showSelected(f *eraseFlags) error {
	if f.asJSON {
		return e.printJSON(f.json())
	}
	p := newPrinter(e.stdout)
	for _, at := range f.places() {
		p.line("%s  boot %s  records %s", at.Node, at.Boot, rangesText(f.selected[at]))
	}
	p.line("%d records would be erased. Nothing is erased yet: say it again with --yes.", f.count())
	p.line("%s", whatStays)
	return p.err
}

func rangesText(ranges []audit.Range) string {
	const shown = 20
	var out []string
	for _, r := range ranges[:min(len(ranges), shown)] {
		out = append(out, r.String())
	}
	if n := len(ranges) - shown; n > 0 {
		out = append(out, fmt.Sprintf("and %d ranges more", n))
	}
	return strings.Join(out, " ")
}

// erasedEverywhere waits, in a fleet of one folder, until every region's ledger
// has carried the erasures out, and says what became of them.
func (e *env) erasedEverywhere(ctx context.Context, f *eraseFlags, digests []wire.Digest) error {
	regions, err := f.regions(ctx, digests)
	if err != nil {
		return err
	}
	out := f.json()
	out.Regions = regions
	for _, d := range digests {
		out.Documents = append(out.Documents, d.String())
	}
	if f.asJSON {
		err = e.printJSON(out)
	} else {
		err = e.printErased(f, &out)
	}
	if err == nil && slices.ContainsFunc(regions, func(r erasedRegion) bool { return r.State != stateErased }) {
		return &exitError{code: exitCheck}
	}
	return err
}

const (
	stateErased  = "erased"
	stateWaiting = "waiting"
	stateRefused = "refused"
)

func (f *eraseFlags) regions(ctx context.Context, digests []wire.Digest) ([]erasedRegion, error) {
	if f.which.dir == "" {
		return nil, nil
	}
	ledgers, err := assembly.Ledgers(assembly.Layout{Dir: f.which.dir})
	if err != nil {
		return nil, nil // a fleet that runs elsewhere
	}
	until := time.Now().Add(f.wait)
	for {
		var out []erasedRegion
		whole := true
		for _, l := range ledgers {
			r := erasedRegion{Region: l.Region, State: stateErased}
			for _, d := range digests {
				done, refused, err := ledger.Outcome(l.Dir, d)
				switch {
				case err != nil:
					return nil, err
				case refused != "":
					r.State, r.Why = stateRefused, refused
				case !done && r.State == stateErased:
					r.State, r.Why = stateWaiting, "for the nodes' answers: until then a part that other records may share is kept"
					whole = false
				}
			}
			out = append(out, r)
		}
		if whole || time.Now().After(until) {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (e *env) printErased(f *eraseFlags, out *erasedJSON) error {
	p := newPrinter(e.stdout)
	for _, at := range f.places() {
		p.line("%s  boot %s  records %s", at.Node, at.Boot, rangesText(f.selected[at]))
	}
	for _, d := range out.Documents {
		p.line("erasure %s", d)
	}
	for _, r := range out.Regions {
		p.line("%s", strings.TrimRight(fmt.Sprintf("region %s: %s %s", r.Region, r.State, r.Why), " "))
	}
	if out.Regions == nil {
		p.line("the regions have it; each server carries it out. \"ledger verify\" of an export shows what it erased.")
	}
	p.line("%d records", out.Count)
	p.line("%s", whatStays)
	return p.err
}
