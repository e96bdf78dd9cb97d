package edge

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// dataDir is where a node keeps the retirements of regions, and the names of the
// erasures that it has answered.
func (n *Node) dataDir() string { return filepath.Join(n.cfg.Dir, "data-documents") }

const (
	retiredSuffix  = ".retired"
	answeredSuffix = ".answered"
)

// openData reads which regions are retired. What two persons signed stays, though
// the trust root names one of them no more.
func (n *Node) openData() error {
	if err := os.MkdirAll(n.dataDir(), 0o700); err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	entries, err := os.ReadDir(n.dataDir())
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), retiredSuffix)
		if ok && bundle.CheckNode(name) == nil {
			n.retired = append(n.retired, name)
		}
	}
	if n.cfg.Retired != nil && len(n.retired) > 0 {
		n.cfg.Retired(slices.Clone(n.retired))
	}
	return nil
}

// takeErasure answers an erasure of this node's records with a record of its own,
// once: the erasure is then part of the tree, and ledgers know that no record
// after it refers to what came before it.
func (n *Node) takeErasure(env []byte) {
	e, err := n.loader.Root().OpenErasure(env)
	if err != nil {
		n.discard(env, err)
		return
	}
	var ranges, records uint64
	for _, r := range e.Records {
		if r.Node == n.cfg.Name {
			ranges += uint64(len(r.Ranges))
			records += r.Count()
		}
	}
	if ranges == 0 {
		return
	}
	n.once(e.Digest, &audit.AdminRecord{Event: audit.EventErased, Actor: strings.Join(e.Persons, ", "), Text: e.Reason, Count: records,
		Detail: map[string]any{"erasure": e.Digest.String(), "ranges": ranges}})
}

// takeRetirement counts a region no more.
func (n *Node) takeRetirement(env []byte) {
	r, err := n.loader.Root().OpenRetirement(env)
	if err != nil {
		n.discard(env, err)
		return
	}
	n.mu.Lock()
	known := slices.Contains(n.retired, r.Region)
	n.mu.Unlock()
	if !known {
		if err := loader.Replace(filepath.Join(n.dataDir(), r.Region+retiredSuffix), env); err != nil {
			n.log.Error("retirement not stored", "region", r.Region, "err", err)
			return
		}
		n.log.Warn("region retired", "region", r.Region, "reason", r.Reason)
		n.retire(r.Region)
	}
	n.once(r.Digest, &audit.AdminRecord{Event: "region_retired", Actor: strings.Join(r.Persons, ", "), Text: r.Reason,
		Detail: map[string]any{"retirement": r.Digest.String(), "region": r.Region}})
}

func (n *Node) retire(region string) {
	n.mu.Lock()
	n.retired = append(n.retired, region)
	retired := slices.Clone(n.retired)
	n.mu.Unlock()
	if n.cfg.Retired != nil {
		n.cfg.Retired(retired)
	}
}

// once writes a record about a document and remembers that it did. Killed in
// between, it writes it again.
func (n *Node) once(d wire.Digest, rec *audit.AdminRecord) {
	path := filepath.Join(n.dataDir(), d.Hex()+answeredSuffix)
	if _, err := os.Stat(path); err == nil {
		return
	}
	err := n.Write(rec)
	if err == nil {
		err = loader.Replace(path, nil)
	}
	if err != nil {
		n.log.Error("document not answered", "event", rec.Event, "document", d.String(), "err", err)
	}
}
