package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/sparing"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What an edge may ask: the token after its name. Every question is on
// hf.TENANT.REGION.up.GATE.NODE., where only NODE may publish.
const (
	askWho      = "who"      // of anyGate: the name of a gate, in Data
	askHead     = "head"     // .BOOT: the last batch, its sequence in Number
	askHeld     = "held"     // .BOOT: the newest checkpoint of what the ledger holds, or in Number the size beyond which it lacks records
	askRecords  = "rec"      // .BOOT: store a batch behind the fence in Number
	askReceipts = "receipts" // the receipts of the node after the sequence in Number
	askAttest   = "att"      // store the newest attestation; Number is an epoch, if it is the first of it
	askObjects  = "pol"      // signed objects after the cursor in Number
	askBlob     = "blob"     // .DIGEST.N: a chunk of a package
	askStates   = "states"   // of readers: attestations after the sequence in Number
	askLeaves   = "leaves"   // of readers: .NODE.BOOT: leaf hashes from the record in Number on
)

// How an answer went, beside "".
const (
	statusNone  = "none"  // there is no such message
	statusFence = "fence" // the fence is not the last sequence
	statusBusy  = "busy"  // ask again, elsewhere or later
	statusBad   = "bad"   // the question is none; Data says why
	statusAway  = "away"  // the region's streams are away; Data says why
)

// anyGate stands for a gate's name in the question who is there. There is no
// queue group: a hostile leaf could join it with a wildcard, and questions that
// the server then chose it for would be lost.
const anyGate = "any"

// Bounds of a gate.
const (
	gateWorkers   = 128
	perNode       = 8 // questions of one node at a time
	answerBytes   = 512 << 10
	answerObjects = 256
	cacheBytes    = 64 << 20
	maxObjects    = 1 << 20  // signed objects of a region
	objectBytes   = 64 << 20 // of their data, in memory
	epochsGiven   = 64       // newest releases, and their orders, that a node gets
)

// ErrBusy means that a region has too much to do, or has just begun.
var ErrBusy = errors.New("region is busy")

// A Gate answers the edges and readers of one tenant for a region, each into its
// own inbox and for its own name only. Every hub server runs one; of those, one
// answers each question. It verifies no signatures, but those of releases whose
// epochs it counts.
type Gate struct {
	region Region
	name   string
	log    *slog.Logger
	blobs  cache
	keep   int // bytes of objects' data in memory
	first  *bundle.TrustRoot
	ledger Ledger // nil for none
	nudges nudges

	refusals sparing.Log

	mu      sync.Mutex // guards what follows
	objects []Object   // of the region's stream, in its order; the oldest without data
	size    int        // of the data
	bare    int        // how many have none
	epochs  []uint64   // of the releases that verify, rising
	root    *bundle.TrustRoot
	stream  string // which stream that is
	head    uint64 // its last sequence read
	ready   bool   // everything that was there at the start was read
	asking  map[string]int
}

// NewGate returns a gate that Run opens. Its connection is a hub server's.
func NewGate(r Region, log *slog.Logger) *Gate {
	return &Gate{region: r, name: rand.Text(), log: log, asking: map[string]int{}, blobs: cache{max: cacheBytes}, keep: objectBytes}
}

// Believe has the gate count the epochs of those releases only that the trust
// root, or one that follows it in the stream, verifies: who may publish, and may
// sign nothing, would else make the gate keep back the true ones as too old. It
// is called before Run; a gate that believes in no root counts every release.
func (g *Gate) Believe(root *bundle.TrustRoot) { g.first, g.root = root, root }

// Run answers until ctx ends, and returns its error, or the first one of
// subscribing.
func (g *Gate) Run(ctx context.Context) error {
	for door, answer := range map[string]func(context.Context, bus.Question) *bus.Answer{"up": g.up, "view": g.view} {
		for _, subject := range []string{anyGate + ".*." + askWho, g.name + ".*.>"} {
			stop, err := g.region.Conn.Serve(ctx, g.region.prefix()+door+"."+subject, "", gateWorkers, func(q bus.Question) *bus.Answer {
				ctx, cancel := context.WithTimeout(ctx, bus.Timeout)
				defer cancel()
				return answer(ctx, q)
			})
			if err != nil {
				return fmt.Errorf("gate of %s: %w", g.region.Name, err)
			}
			defer stop()
		}
	}
	for {
		err := g.read(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g.log.Debug("gate reads policies", "region", g.region.Name, "err", err)
		if err := sleep(ctx, retry); err != nil {
			return err
		}
	}
}

// read keeps the signed objects of the region in memory.
func (g *Gate) read(ctx context.Context) error {
	created, err := g.region.policies().Created(ctx)
	if err != nil {
		return err
	}
	g.begin(created)
	for { // what is there already
		group, err := g.region.policies().Batch(ctx, g.last()+1, g.region.pol(">"), answerObjects, answerBytes)
		if err != nil {
			return err
		}
		if len(group) == 0 {
			break
		}
		if err := g.add(group); err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.ready = true
	g.mu.Unlock()
	subject := g.region.pol(">")
	return g.region.policies().Follow(ctx, g.last()+1, subject, []string{g.region.stored(subject)}, poll, g.add)
}

// begin forgets what was read of another stream.
func (g *Gate) begin(created time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id := created.UTC().Format(time.RFC3339Nano); id != g.stream {
		g.stream, g.objects, g.head, g.ready = id, nil, 0, false
		g.size, g.bare, g.epochs, g.root = 0, 0, nil, g.first
	}
}

func (g *Gate) last() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.head
}

var errAnew = errors.New("the stream was made anew")

func (g *Gate) add(group []bus.Msg) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.region.objects(group) {
		if o.Seq <= g.head {
			g.stream = ""
			return errAnew
		}
		if len(g.objects) >= maxObjects {
			return fmt.Errorf("more than %d signed objects", maxObjects)
		}
		if g.root != nil && o.part(0) == kindRoot {
			if next, err := g.root.OpenNext(o.Data); err == nil {
				g.root = next
			}
		}
		g.objects, g.head, g.size = append(g.objects, o), o.Seq, g.size+len(o.Data)
		if epoch, ok := number(o.part(1)); ok && o.part(0) == kindRelease && g.believes(o.Data, epoch) {
			at, _ := slices.BinarySearch(g.epochs, epoch)
			g.epochs = slices.Insert(g.epochs, at, epoch)
		}
	}
	for ; g.size > g.keep; g.bare++ {
		g.size -= len(g.objects[g.bare].Data)
		g.objects[g.bare].Data = nil
	}
	return nil
}

// believes reports whether an envelope is a release of the epoch. The lock is held.
func (g *Gate) believes(envelope []byte, epoch uint64) bool {
	if g.root == nil {
		return true
	}
	r, err := g.root.ReopenRelease(envelope)
	return err == nil && r.Epoch == epoch
}

// knows reports whether the region has a release of that epoch.
func (g *Gate) knows(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := slices.BinarySearch(g.epochs, epoch)
	return ok
}

// old reports whether the object belongs to a release before the newest ones. The
// lock is held.
func (g *Gate) old(o Object) bool {
	if kind := o.part(0); kind != kindRelease && kind != kindOrder || len(g.epochs) <= epochsGiven {
		return false
	}
	epoch, ok := number(o.part(1))
	return ok && epoch < g.epochs[len(g.epochs)-epochsGiven]
}

// asker returns who asks, and what. It refuses an answer that would not go to
// the asker's own inbox: the answer is sent with a hub's permissions.
func (g *Gate) asker(q bus.Question, door string, inboxes ...func(string) string) (name string, what []string, err error) {
	rest, ok := strings.CutPrefix(q.Subject, g.region.prefix()+door+".")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) < 3 {
		return "", nil, errors.New("no question")
	}
	for _, inbox := range inboxes {
		if strings.HasPrefix(q.Reply, inbox(parts[1])+".") {
			return parts[1], parts[2:], nil
		}
	}
	return "", nil, fmt.Errorf("the answer is wanted on %.80q", q.Reply)
}

// enter counts a question; leave must follow if it says true.
func (g *Gate) enter(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asking[name] >= perNode {
		return false
	}
	g.asking[name]++
	return true
}

func (g *Gate) leave(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asking[name]--; g.asking[name] == 0 {
		delete(g.asking, name)
	}
}

// up answers an edge.
func (g *Gate) up(ctx context.Context, q bus.Question) *bus.Answer {
	node, what, err := g.asker(q, "up", auth.EdgeInbox)
	if err != nil {
		g.refusals.Warn(g.log, "gate refuses a question", "region", g.region.Name, "subject", q.Subject, "err", err)
		return nil
	}
	if !g.enter(node) {
		return &bus.Answer{Status: statusBusy}
	}
	defer g.leave(node)
	arg := strings.Join(what[1:], ".")
	switch what[0] {
	case askWho:
		return &bus.Answer{Data: []byte(g.name)}
	case askHead:
		return g.headOf(ctx, node, arg)
	case askHeld:
		return g.held(node, arg)
	case askRecords:
		return g.store(ctx, node, arg, q)
	case askReceipts:
		return g.list(ctx, g.region.receipts(), g.region.receipt(node, "*"), q.Number)
	case askAttest:
		return g.attest(ctx, node, q)
	case askObjects:
		return g.give(ctx, q.Number, func(o Object) bool { return o.concerns(node) && !g.old(o) })
	case askBlob:
		return g.blob(ctx, arg)
	}
	return bad("no such question: %.80q", what[0])
}

// view answers somebody who only looks on.
func (g *Gate) view(ctx context.Context, q bus.Question) *bus.Answer {
	user, what, err := g.asker(q, "view", auth.ReaderInbox, auth.OperatorInbox)
	if err != nil {
		g.refusals.Warn(g.log, "gate refuses a question", "region", g.region.Name, "subject", q.Subject, "err", err)
		return nil
	}
	if !g.enter("view." + user) {
		return &bus.Answer{Status: statusBusy}
	}
	defer g.leave("view." + user)
	switch what[0] {
	case askWho:
		return &bus.Answer{Data: []byte(g.name)}
	case askObjects:
		return g.give(ctx, q.Number, Object.signed)
	case askStates:
		return g.list(ctx, g.region.state(), g.region.prefix()+">", q.Number)
	case askReceipts:
		return g.list(ctx, g.region.receipts(), g.region.receipt("*", "*"), q.Number)
	case askLeaves:
		return g.leaves(what[1:], q.Number)
	case askBlob:
		return g.blob(ctx, strings.Join(what[1:], "."))
	}
	return bad("no such question: %.80q", what[0])
}

func (g *Gate) headOf(ctx context.Context, node, boot string) *bus.Answer {
	if err := checkToken("boot", boot); err != nil {
		return bad("%v", err)
	}
	m, err := g.region.records().Last(ctx, g.region.record(node, boot))
	if err != nil {
		return failed(err)
	}
	return &bus.Answer{Number: decimal(m.Seq), Data: m.Data}
}

func (g *Gate) store(ctx context.Context, node, boot string, q bus.Question) *bus.Answer {
	fence, ok := number(q.Number)
	if err := checkToken("boot", boot); err != nil || !ok {
		return bad("boot %.80q, fence %.40q", boot, q.Number)
	}
	if g.nudges.due(g.ledger, node, boot, q.Data) {
		return &bus.Answer{Status: statusFence} // the node asks where the region is
	}
	seq, err := g.region.records().Append(ctx, g.region.record(node, boot), q.Data, fence)
	if err != nil {
		return failed(err)
	}
	return &bus.Answer{Number: decimal(seq)}
}

func (g *Gate) attest(ctx context.Context, node string, q bus.Question) *bus.Answer {
	if len(q.Data) > audit.MaxAttestation {
		return bad("attestation of %d bytes; at most %d", len(q.Data), audit.MaxAttestation)
	}
	if q.Number != "" {
		// A node that makes up epochs would fill the stream.
		if epoch, ok := number(q.Number); !ok || !g.learns(ctx, epoch) {
			return bad("epoch %.40q: the region has no such release", q.Number)
		}
		_, err := g.region.state().Append(ctx, g.region.activation(node, q.Number), q.Data, 0)
		var taken *bus.FenceError // there is a first one already
		if err != nil && !errors.As(err, &taken) {
			return failed(err)
		}
	}
	if err := g.region.state().Put(ctx, g.region.attestation(node), q.Data); err != nil {
		return failed(err)
	}
	return &bus.Answer{}
}

// learns waits a bounded time for a release that may just have been stored.
func (g *Gate) learns(ctx context.Context, epoch uint64) bool {
	for wait := 2 * time.Millisecond; !g.knows(epoch); wait *= 2 {
		if wait > patience || sleep(ctx, wait) != nil {
			return false
		}
	}
	return true
}

// item is a message in an answer that has several.
type item struct {
	Name string `cbor:"n"`
	Seq  uint64 `cbor:"s"`
	At   int64  `cbor:"t"` // ns since 1970
	Data []byte `cbor:"d"`
}

// give answers with the objects after a cursor, "STREAM SEQUENCE", that are
// wanted. Number is the next cursor.
func (g *Gate) give(ctx context.Context, cursor string, wanted func(Object) bool) *bus.Answer {
	objects, next, ready := g.choose(cursor, wanted)
	if !ready {
		return &bus.Answer{Status: statusBusy}
	}
	var items []item
	size := 0
	for _, o := range objects {
		if o.Data == nil {
			m, err := g.region.policies().Last(ctx, g.region.pol(o.Name))
			if err != nil {
				return failed(err)
			}
			o.Data = m.Data
		}
		if size += len(o.Data); size > answerBytes && len(items) > 0 {
			stream, _, _ := strings.Cut(next, " ")
			next = stream + " " + decimal(items[len(items)-1].Seq)
			break
		}
		items = append(items, item{o.Name, o.Seq, o.At.UnixNano(), o.Data})
	}
	return several(items, next)
}

// choose returns the first objects that are wanted after a cursor, and the cursor
// behind them.
func (g *Gate) choose(cursor string, wanted func(Object) bool) (objects []Object, next string, ready bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	after := uint64(0)
	if stream, seq, ok := strings.Cut(cursor, " "); ok && stream == g.stream {
		after, _ = number(seq) // a damaged one begins anew
	}
	reached := max(after, g.head)
	for _, o := range g.objects[g.after(after):] {
		if !wanted(o) {
			continue
		}
		if len(objects) == answerObjects {
			reached = objects[len(objects)-1].Seq
			break
		}
		objects = append(objects, o)
	}
	return objects, g.stream + " " + decimal(reached), g.ready
}

// after is the index of the first object behind a sequence.
func (g *Gate) after(seq uint64) int {
	low, high := 0, len(g.objects)
	for low < high {
		mid := (low + high) / 2
		if g.objects[mid].Seq <= seq {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// list answers with the messages of a stream after the sequence in number.
func (g *Gate) list(ctx context.Context, s *bus.Stream, subject, after string) *bus.Answer {
	seq, _ := number(after) // a damaged one begins anew
	group, err := s.Batch(ctx, seq+1, subject, answerObjects, answerBytes)
	if err != nil {
		return failed(err)
	}
	var items []item
	for _, m := range group {
		items, seq = append(items, item{strings.TrimPrefix(m.Subject, g.region.prefix()), m.Seq, m.Time.UnixNano(), m.Data}), m.Seq
	}
	return several(items, decimal(seq))
}

func several(items []item, next string) *bus.Answer {
	data, err := wire.Marshal(items)
	if err != nil {
		return bad("%v", err)
	}
	return &bus.Answer{Number: next, Data: data}
}

// blob answers with a chunk of a package. Chunks never change.
func (g *Gate) blob(ctx context.Context, name string) *bus.Answer {
	digest, chunk, _ := strings.Cut(name, ".")
	if _, err := wire.ParseDigest("sha256:" + digest); err != nil {
		return bad("%v", err)
	}
	if _, ok := number(chunk); !ok {
		return bad("chunk %.40q", chunk)
	}
	subject := g.region.prefix() + "blob." + name
	if data, ok := g.blobs.get(subject); ok {
		return &bus.Answer{Data: data}
	}
	m, err := eventually(ctx, g.region.policies(), subject)
	if err != nil {
		return failed(err)
	}
	g.blobs.put(subject, m.Data)
	return &bus.Answer{Data: m.Data}
}

func bad(format string, args ...any) *bus.Answer {
	return &bus.Answer{Status: statusBad, Data: fmt.Appendf(nil, format, args...)}
}

// failed turns an error of a stream into an answer.
func failed(err error) *bus.Answer {
	var fence *bus.FenceError
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return &bus.Answer{Status: statusNone}
	case errors.As(err, &fence):
		return &bus.Answer{Status: statusFence}
	}
	return &bus.Answer{Status: statusAway, Data: fmt.Appendf(nil, "%.200s", err.Error())}
}

// A cache keeps what was used last, up to a number of bytes.
type cache struct {
	max int

	mu    sync.Mutex // guards what follows
	size  int
	order []string // oldest first
	data  map[string][]byte
}

func (c *cache) get(name string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.data[name]
	return d, ok
}

func (c *cache) put(name string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data == nil {
		c.data = map[string][]byte{}
	}
	if _, ok := c.data[name]; ok || len(data) > c.max {
		return
	}
	for c.size+len(data) > c.max {
		c.size -= len(c.data[c.order[0]])
		delete(c.data, c.order[0])
		c.order = c.order[1:]
	}
	c.data[name], c.size, c.order = data, c.size+len(data), append(c.order, name)
}
