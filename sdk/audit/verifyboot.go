package audit

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/inorder"
)

// A claim is what somebody signed about the size of a boot, and about its root
// unless that is nil.
type claim struct {
	tenant string
	size   uint64
	root   *tlog.Hash
	by     string
	// last: the boot ended at size.
	last bool
}

// claimsOf returns what a boot record says of the boot before it.
func claimsOf(boot string, r *BootRecord) []claim {
	head := claim{tenant: r.Tenant, size: r.PreviousSize, root: r.PreviousRoot, by: boot, last: true}
	out := []claim{head}
	for _, d := range r.Damage {
		if d.Boot == r.Previous {
			out[0].last = false
			out = append(out, claim{tenant: r.Tenant, size: max(d.From, d.To), by: boot})
		}
	}
	return out
}

// A bootVerifier proves one boot, batch by batch.
type bootVerifier struct {
	*verifier
	node, boot string
	tenant     string  // of the first that was proven of it, or of the boot that follows it
	claims     []claim // by size, those before next were passed
	next       int
	out        BootReport
	first      *BootRecord

	tree   Frontier
	proven bool   // tree is what the node signed for the records up to seen
	seen   uint64 // the last seq that was proven, found altered or found missing
	spans  []span // what the batches so far hold
	newest int64  // time of the newest checkpoint
	sides  map[string]bool
	window *blobWindow
}

type span struct {
	Range
	path string
}

func newBootVerifier(v *verifier, node, boot string, claims []claim) *bootVerifier {
	tenant := ""
	if len(claims) > 0 {
		tenant = claims[0].tenant
	}
	return &bootVerifier{verifier: v, node: node, boot: boot, tenant: tenant, claims: claims, proven: true, out: BootReport{
		Boot: boot, Gaps: []Range{}, Forks: []Range{}, Altered: []Range{}, Doubled: []Range{}, Missing: []Range{},
		Erased: []Range{}, NotErased: []Range{}, PartsExpired: []Range{}, Expired: []Range{},
		Records: map[string]uint64{}, Cosigned: map[string]uint64{},
	}}
}

func (b *bootVerifier) verify(files *bootFiles) BootReport {
	for _, name := range files.checkpoints {
		b.checkpoint(name)
	}
	slices.SortStableFunc(b.claims, func(x, y claim) int { return cmp.Compare(x.size, y.size) })
	b.sides = map[string]bool{}
	for _, name := range files.sides {
		b.sides[name] = true
	}
	workers := b.options.Workers
	batches := inorder.Map(workers, slices.Values(b.places(files.batches)), func(p placed) *opened { return b.open(p.name, p.first, p.end) })
	noted := func(yield func(*opened) bool) {
		for o := range batches {
			if !yield(b.note(o)) {
				return
			}
		}
	}
	for o := range inorder.Map(workers, noted, b.inspect) {
		if b.ctx.Err() != nil {
			break
		}
		b.take(o)
	}
	b.finish()
	return b.out
}

// A placed is where the name of a batch says that it belongs.
type placed struct {
	name       string
	first, end uint64
}

func (b *bootVerifier) places(batches []string) []placed {
	out := make([]placed, len(batches))
	for i, name := range batches {
		first, _ := leadingNumber(path.Base(name))
		out[i] = placed{name, first, b.end(batches[i+1:], first)}
	}
	return out
}

// end is the last seq that the batch from first can hold, going by what
// follows it, for when its own word is worth nothing.
func (b *bootVerifier) end(later []string, first uint64) uint64 {
	if len(later) > 0 {
		if next, _ := leadingNumber(path.Base(later[0])); next > first {
			return next - 1
		}
	} else if n := len(b.claims); n > 0 && b.claims[n-1].size > first {
		return min(b.claims[n-1].size, first+MaxBatchRecords-1)
	}
	return first
}

// checkpoint turns a signed checkpoint into a claim.
func (b *bootVerifier) checkpoint(name string) {
	c, n, err := b.openCheckpoint(name)
	if err != nil {
		b.damaged(name, "%v", err)
		return
	}
	b.claims = append(b.claims, claim{tenant: c.Tenant, size: c.Size, root: &c.Root, by: name})
	b.signed(c)
	for _, s := range n.Sigs {
		if region, ok := strings.CutPrefix(s.Name, RegionKeyName(c.Tenant, "")); ok {
			b.out.Cosigned[region] = max(b.out.Cosigned[region], c.Size)
		}
		if witness, ok := strings.CutPrefix(s.Name, WitnessKeyName(c.Tenant, "")); ok {
			if b.out.Witnessed == nil {
				b.out.Witnessed = map[string]uint64{}
			}
			b.out.Witnessed[witness] = max(b.out.Witnessed[witness], c.Size)
		}
	}
}

// ofTenant is an error when the boot is another tenant's: nodes of several tenants
// may have the same name, and the keys of all may be trusted.
func (b *bootVerifier) ofTenant(tenant string) error {
	if b.tenant != "" && tenant != b.tenant {
		return fmt.Errorf("of tenant %s; the boot is of tenant %s", tenant, b.tenant)
	}
	return nil
}

// signed keeps the tenant, and the time of the newest checkpoint.
func (b *bootVerifier) signed(c Checkpoint) {
	b.tenant = c.Tenant
	if c.Time > b.newest {
		b.newest = c.Time
		b.out.AsOf = time.Unix(0, c.Time).UTC().Format(time.RFC3339Nano)
	}
}

func (b *bootVerifier) openCheckpoint(name string) (Checkpoint, *note.Note, error) {
	msg, err := readFile(b.fsys, name, MaxNoteBytes)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := PeekCheckpoint(msg)
	if err != nil {
		return c, nil, err
	}
	size, _ := leadingNumber(path.Base(name))
	if c.Node != b.node || c.Boot != b.boot || c.Size != size {
		return c, nil, fmt.Errorf("the checkpoint of %s at %d", c.Origin(), c.Size)
	}
	key := b.keys.Node(c.Tenant, c.Node)
	if key == nil {
		return c, nil, fmt.Errorf("no public key for %s", NodeKeyName(c.Tenant, c.Node))
	}
	if err := b.ofTenant(c.Tenant); err != nil {
		return c, nil, err
	}
	return openNote(msg, key, append(b.keys.Regions(c.Tenant), b.keys.Witnesses(c.Tenant)...)...)
}

func (b *bootVerifier) begin(r *Record, batch *Batch, name string) {
	if r.Boot == nil || r.Boot.Tenant != batch.Tenant || r.Boot.Node != b.node || r.Boot.Boot != b.boot {
		b.contradicts(Range{1, 1}, name+" does not begin with the boot's record")
		return
	}
	b.first = r.Boot
}

// settle checks the claims about the tree's size; those about smaller sizes
// were about records that are missing or altered.
func (b *bootVerifier) settle(tree *Frontier) {
	for ; b.next < len(b.claims) && b.claims[b.next].size <= tree.Size(); b.next++ {
		c := b.claims[b.next]
		if c.size == tree.Size() && c.root != nil && *c.root != tree.Root() {
			b.contradicts(Range{c.size, c.size}, c.by+" signed another tree")
		}
	}
}

// overlap compares records that are there again with what was there before.
func (b *bootVerifier) overlap(batch *Batch, leaves []tlog.Hash) {
	for _, s := range b.spans {
		from, to := max(s.From, batch.First), min(s.To, batch.Last())
		if from > to {
			continue
		}
		earlier := b.open(s.path, s.From, s.To)
		if earlier.err != nil {
			b.problem(s.path, "%v", earlier.err)
			continue
		}
		for seq := from; seq <= to; seq++ {
			if earlier.leaves[seq-s.From] == leaves[seq-batch.First] {
				b.out.Doubled = extend(b.out.Doubled, Range{seq, seq})
			} else {
				b.contradicts(Range{seq, seq}, "two records were signed")
			}
		}
	}
}

// finish reports what was claimed and never came.
func (b *bootVerifier) finish() {
	for i, c := range b.claims {
		if c.size > b.seen {
			if b.missing(Range{b.seen + 1, c.size}) {
				b.problem(b.where(), "%s covers records up to %d", c.by, c.size)
			}
			b.seen = c.size
		}
		if c.last && c.size < b.out.To {
			b.contradicts(Range{c.size + 1, b.out.To}, "boot "+c.by+" says that this one ended before")
		}
		if i > 0 && c.size == b.claims[i-1].size && c.root != nil && b.claims[i-1].root != nil && *c.root != *b.claims[i-1].root {
			b.contradicts(Range{c.size, c.size}, c.by+" and "+b.claims[i-1].by+" signed different trees")
		}
	}
	if b.seen == 0 {
		b.problem(b.where(), "no record is there")
	}
	for _, r := range b.out.Missing {
		b.problem(b.where(), "parts of the records %v are not there", r)
	}
	o := &b.out
	o.Complete = b.seen > 0 && len(o.Gaps)+len(o.Forks)+len(o.Altered)+len(o.Doubled) == 0
}

func (b *bootVerifier) alter(r Range) { b.out.Altered = extend(b.out.Altered, r) }

func (b *bootVerifier) contradicts(r Range, why string) {
	b.problem(b.where(), "fork at %v: %s", r, why)
	b.out.contradict(r)
}

func (o *BootReport) contradict(r Range) {
	o.Forks = extend(o.Forks, r)
	o.Complete = false
}

// extend adds a range, joined with the last one where they touch.
func extend(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].From <= r.From && r.From <= ranges[n-1].To+1 {
		ranges[n-1].To = max(ranges[n-1].To, r.To)
		return ranges
	}
	return append(ranges, r)
}
