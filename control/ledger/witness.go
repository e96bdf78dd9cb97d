package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Watched is what a witness sees of regions: no records, only their hashes.
type Watched interface {
	// Receipts calls take, one at a time, with the last receipt of each boot in
	// every region, and with those that come, until ctx ends.
	Receipts(ctx context.Context, take func(region, node, boot string, receipt []byte)) error
	// Leaves returns leaf hashes from a record on, 32 bytes each, as many as come
	// at once.
	Leaves(ctx context.Context, region, node, boot string, from uint64) ([]byte, error)
}

// WitnessConfig is what NewWitness needs.
type WitnessConfig struct {
	Dir, Tenant string
	// Key's name must be an audit.WitnessKeyName of the tenant.
	Key note.Signer
	// Keys are those of nodes and regions: a receipt of others is not signed.
	Keys    *audit.Keys
	Regions Watched
	Alarm   func(Alarm)
	Log     *slog.Logger
}

// A Witness counter-signs the regions' receipts, in its own folder:
//
//	nodes/NODE/BOOT/tree              what it signed last and the tree of it, behind their SHA-256
//	evidence/REASON-DIGEST.checkpoint what contradicts that, and .txt: why
//
// It signs a tree only when it has computed that the tree which it signed before
// is a part of it, from leaf hashes that the region gives.
type Witness struct {
	cfg WitnessConfig

	mu    sync.Mutex // guards what follows
	trees map[bootKey]*witnessed
}

// witnessed is what is stored of a boot.
type witnessed struct {
	Note   []byte      `cbor:"1,keyasint"`
	Size   uint64      `cbor:"2,keyasint"`
	Roots  []tlog.Hash `cbor:"3,keyasint"`
	Forked bool        `cbor:"4,keyasint,omitempty"`
}

const treeFile = "tree"

// NewWitness reads the folder. A tree that is damaged is an error: a witness that
// forgot what it signed would sign a fork.
func NewWitness(c WitnessConfig) (*Witness, error) {
	if c.Key == nil || !strings.HasPrefix(c.Key.Name(), audit.WitnessKeyName(c.Tenant, "")) {
		return nil, fmt.Errorf("witness of tenant %q: needs a witness's key", c.Tenant)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Alarm == nil {
		c.Alarm = func(Alarm) {}
	}
	w := &Witness{cfg: c, trees: map[bootKey]*witnessed{}}
	if err := makeDir(filepath.Join(c.Dir, evidenceDir)); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	nodes, err := archive(c.Dir).boots()
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	for node, boots := range nodes {
		for _, boot := range boots {
			tree, err := w.load(bootKey{node, boot})
			if err != nil {
				return nil, fmt.Errorf("witness: tree of %s/%s: %w", node, boot, err)
			}
			if tree != nil {
				w.trees[bootKey{node, boot}] = tree
			}
		}
	}
	return w, nil
}

// load reads a boot's tree and compares it with the signed note that it is of;
// nil when there is none.
func (w *Witness) load(key bootKey) (*witnessed, error) {
	doc, err := os.ReadFile(filepath.Join(archive(w.cfg.Dir).boot(key.node, key.boot), treeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t witnessed
	sum, doc := doc[:min(len(doc), len(wire.Digest{}))], doc[min(len(doc), len(wire.Digest{})):]
	if want := wire.Sum(doc); !bytes.Equal(sum, want[:]) {
		return nil, errors.New("is damaged")
	}
	if err := wire.Unmarshal(doc, &t); err != nil {
		return nil, err
	}
	c, err := audit.PeekCheckpoint(t.Note)
	if err != nil {
		return nil, err
	}
	f, ok := audit.NewFrontier(t.Size, t.Roots)
	if !ok || c.Size != t.Size || c.Root != f.Root() || c.Node != key.node || c.Boot != key.boot {
		return nil, errors.New("is not that of its note")
	}
	return &t, nil
}

// Run follows the regions until ctx ends and returns its error. A boot that
// cannot be followed now is tried again when its next receipt comes, or when
// everything is read again.
func (w *Witness) Run(ctx context.Context) error {
	for {
		within, cancel := context.WithTimeout(ctx, witnessAgain)
		err := w.cfg.Regions.Receipts(within, func(region, node, boot string, msg []byte) {
			if err := w.hear(within, region, bootKey{node, boot}, msg); err != nil && within.Err() == nil {
				w.cfg.Log.Warn("not witnessed", "region", region, "node", node, "boot", boot, "err", err)
			}
		})
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.cfg.Log.Debug("receipts are read again", "err", err)
	}
}

// witnessAgain is how often all receipts are read again.
const witnessAgain = time.Minute

// hear counter-signs a receipt if it continues what was signed before.
func (w *Witness) hear(ctx context.Context, region string, key bootKey, msg []byte) error {
	verifier, theirs := w.cfg.Keys.Node(w.cfg.Tenant, key.node), w.cfg.Keys.Region(w.cfg.Tenant, region)
	if verifier == nil || theirs == nil {
		return errors.New("no public key of the node or the region")
	}
	r, err := audit.OpenReceipt(msg, verifier, theirs)
	if err != nil {
		return err
	}
	if r.Tenant != w.cfg.Tenant || r.Node != key.node || r.Boot != key.boot {
		return errors.New("a receipt of another boot")
	}
	w.mu.Lock()
	have := w.trees[key]
	w.mu.Unlock()
	if have == nil {
		have = &witnessed{}
	}
	if have.Forked || r.Size < have.Size { // a smaller tree of the other region was compared when it was newer, or will be never
		return nil
	}
	tree, ok := audit.NewFrontier(have.Size, append([]tlog.Hash(nil), have.Roots...))
	if !ok {
		return errors.New("the tree is damaged")
	}
	if err := w.grow(ctx, region, key, &tree, r.Size); err != nil {
		return err
	}
	if tree.Root() != r.Root {
		if err := w.proves(ctx, region, key, have, r); err != nil {
			return err
		}
		return w.contradicts(key, have, region, msg, r.Size)
	}
	if r.Size == have.Size {
		return nil
	}
	signed, err := audit.Witness(msg, verifier, []note.Verifier{theirs}, w.cfg.Key)
	if err != nil {
		return err
	}
	return w.store(key, &witnessed{Note: signed, Size: r.Size, Roots: tree.Roots()})
}

// proves returns nil when a receipt's tree, which the region's leaves from the
// first on give, does not begin with the one that was signed before. Leaves that
// do not even give the tree that the region signed prove nothing.
func (w *Witness) proves(ctx context.Context, region string, key bootKey, have *witnessed, r audit.Receipt) error {
	if r.Size == have.Size {
		return nil
	}
	var tree audit.Frontier
	if err := w.grow(ctx, region, key, &tree, have.Size); err != nil {
		return err
	}
	if err := w.grow(ctx, region, key, &tree, r.Size); err != nil {
		return err
	}
	if tree.Root() != r.Root {
		return errors.New("the region's hashes do not give the tree that it signed")
	}
	return nil
}

// grow appends the region's leaves to the tree up to a size.
func (w *Witness) grow(ctx context.Context, region string, key bootKey, tree *audit.Frontier, size uint64) error {
	for tree.Size() < size {
		leaves, err := w.cfg.Regions.Leaves(ctx, region, key.node, key.boot, tree.Size()+1)
		if err != nil {
			return err
		}
		if len(leaves) == 0 || len(leaves)%tlog.HashSize != 0 {
			return fmt.Errorf("the region does not give record %d", tree.Size()+1)
		}
		for ; len(leaves) > 0 && tree.Size() < size; leaves = leaves[tlog.HashSize:] {
			tree.Append(tlog.Hash(leaves[:tlog.HashSize]))
		}
	}
	return nil
}

// contradicts keeps a receipt whose tree does not continue the one that was
// signed, and signs nothing more of that boot.
func (w *Witness) contradicts(key bootKey, have *witnessed, region string, msg []byte, size uint64) error {
	no := refuse(fork, "region %s signed a tree of %d records that does not continue the one of %d", region, size, have.Size).(*refusal)
	path := strings.TrimSuffix(archive(w.cfg.Dir).evidence(fork, msg), ".batch") + ".checkpoint"
	text := []byte(key.node + "/" + key.boot + "\n" + no.Error() + "\n")
	if err := errors.Join(create(path, msg), replace(strings.TrimSuffix(path, ".checkpoint")+".txt", text)); err != nil {
		return err
	}
	if have.Size > 0 {
		stopped := *have
		stopped.Forked = true
		if err := w.store(key, &stopped); err != nil {
			return err
		}
	}
	w.cfg.Alarm(Alarm{Node: key.node, Boot: key.boot, Reason: string(fork), Text: no.text})
	return no
}

// store makes a boot's tree durable.
func (w *Witness) store(key bootKey, t *witnessed) error {
	doc, err := wire.Marshal(t)
	if err != nil {
		return err
	}
	dir, sum := archive(w.cfg.Dir).boot(key.node, key.boot), wire.Sum(doc)
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, treeFile), append(sum[:], doc...)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trees[key] = t
	return nil
}

// Size is how much of a boot was counter-signed.
func (w *Witness) Size(node, boot string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.trees[bootKey{node, boot}]; t != nil {
		return t.Size
	}
	return 0
}

// ExportWitness adds what the witness whose folder is dir counter-signed to an
// export, and what it keeps as evidence.
func ExportWitness(dir string, w *audit.ExportWriter) error {
	nodes, err := archive(dir).boots()
	if err != nil {
		return err
	}
	seen := &Witness{cfg: WitnessConfig{Dir: dir}}
	for node, boots := range nodes {
		for _, boot := range boots {
			t, err := seen.load(bootKey{node, boot})
			if err == nil && t != nil {
				err = w.Checkpoint(t.Note)
			}
			if err != nil {
				return fmt.Errorf("witness: %s/%s: %w", node, boot, err)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, evidenceDir))
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".checkpoint" {
			continue
		}
		msg, err := os.ReadFile(filepath.Join(dir, evidenceDir, e.Name()))
		if err == nil {
			err = w.Checkpoint(msg)
		}
		if err != nil {
			return fmt.Errorf("witness: %s: %w", e.Name(), err)
		}
	}
	return nil
}
