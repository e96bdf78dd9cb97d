package audit

import (
	"bufio"
	"bytes"
	"fmt"
	"sort"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// Keys are the public keys that verification trusts. The zero value trusts
// nobody. They are safe for concurrent use.
type Keys struct {
	mu             sync.RWMutex             // guards what follows
	nodes, regions map[string]note.Verifier // by key name
	lines          map[string]bool
	open           func(envelope []byte) (Document, error)

	witnesses witnesses
}

// ParseKeys reads a public.keys file: lines "node VKEY", "region VKEY" and
// "witness VKEY" with note verifier keys, empty lines, and comments that begin with #.
func ParseKeys(file []byte) (*Keys, error) {
	k := &Keys{}
	lines := bufio.NewScanner(bytes.NewReader(file))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		role, vkey, _ := strings.Cut(line, " ")
		add := func() error { return k.add(role, vkey) }
		if role == "witness" {
			add = func() error { return k.AddWitness(vkey) }
		}
		if err := add(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return k, lines.Err()
}

// AddNode trusts the log key of a node.
func (k *Keys) AddNode(vkey string) error { return k.add("node", vkey) }

// AddRegion trusts the ledger key of a region.
func (k *Keys) AddRegion(vkey string) error { return k.add("region", vkey) }

// SetNode trusts the log key of a node in the place of one that it had.
func (k *Keys) SetNode(vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	k.mu.Lock()
	for line := range k.lines {
		if old, ok := strings.CutPrefix(line, "node "); ok && strings.HasPrefix(old, v.Name()+"+") && old != vkey {
			delete(k.lines, line)
			delete(k.nodes, v.Name())
		}
	}
	k.mu.Unlock()
	return k.add("node", vkey)
}

func (k *Keys) add(role, vkey string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lines == nil {
		k.nodes, k.regions, k.lines = map[string]note.Verifier{}, map[string]note.Verifier{}, map[string]bool{}
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("%s key: %w", role, err)
	}
	parts := strings.Split(v.Name(), "/")
	var into map[string]note.Verifier
	switch {
	case role == "node" && len(parts) == 3 && parts[0] == "holdfast" && ValidName(parts[1]) && ValidName(parts[2]):
		into = k.nodes
	case role == "region" && len(parts) == 4 && parts[0] == "holdfast" && ValidName(parts[1]) && parts[2] == "region" && ValidName(parts[3]):
		into = k.regions
	default:
		return fmt.Errorf("key name %.200q is not that of a %.20q", v.Name(), role)
	}
	if old := into[v.Name()]; old != nil && !k.lines[role+" "+vkey] {
		return fmt.Errorf("a second key for %s", v.Name())
	}
	into[v.Name()] = v
	k.lines[role+" "+vkey] = true
	return nil
}

// Node returns the key of a node, or nil.
func (k *Keys) Node(tenant, node string) note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if v, ok := k.nodes[NodeKeyName(tenant, node)]; ok {
		return v
	}
	return nil
}

// Region returns the key of a region's ledger, or nil.
func (k *Keys) Region(tenant, region string) note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if v, ok := k.regions[RegionKeyName(tenant, region)]; ok {
		return v
	}
	return nil
}

// Regions returns the keys of all regions of a tenant, by name.
func (k *Keys) Regions(tenant string) []note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []note.Verifier
	for name, v := range k.regions {
		if strings.HasPrefix(name, RegionKeyName(tenant, "")) {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out
}

// File returns the keys as a public.keys file that ParseKeys reads.
func (k *Keys) File() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	lines := make([]string, 0, len(k.lines))
	for line := range k.lines {
		lines = append(lines, line+"\n")
	}
	sort.Strings(lines)
	return []byte("# Holdfast public keys: all that offline verification trusts.\n" + strings.Join(lines, "") + k.witnesses.lines())
}
