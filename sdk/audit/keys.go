package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// Keys are the public keys that verification trusts. The zero value trusts
// nobody. They are safe for concurrent use.
type Keys struct {
	mu        sync.RWMutex        // guards what follows
	nodes     map[string]nodeKeys // by key name
	regions   cosigners
	witnesses cosigners
	open      func(envelope []byte) (Document, error)
}

// cosigners are the keys of those who counter-sign, each with one, by key name.
type cosigners map[string]cosigner

type cosigner struct {
	note.Verifier
	vkey string
}

// add trusts the key of one in a role, such as region.
func (s *cosigners) add(role, vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("%s key: %w", role, err)
	}
	parts := strings.Split(v.Name(), "/")
	if len(parts) != 4 || parts[0] != "holdfast" || !ValidName(parts[1]) || parts[2] != role || !ValidName(parts[3]) {
		return fmt.Errorf("key name %.200q is not that of a %s", v.Name(), role)
	}
	if have, twice := (*s)[v.Name()]; twice && have.vkey != vkey {
		return fmt.Errorf("a second key for %s", v.Name())
	}
	if *s == nil {
		*s = cosigners{}
	}
	(*s)[v.Name()] = cosigner{v, vkey}
	return nil
}

// lines are those of a public.keys file.
func (s cosigners) lines(role string) string {
	var out strings.Builder
	for _, name := range sortedKeys(s) {
		out.WriteString(role + " " + s[name].vkey + "\n")
	}
	return out.String()
}

// named are those whose key names begin with prefix, by name.
func (s cosigners) named(prefix string) (out []note.Verifier) {
	for _, name := range sortedKeys(s) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, s[name].Verifier)
		}
	}
	return out
}

// A nodeKey is one log key of a node.
type nodeKey struct {
	note.Verifier
	vkey string
	// until is the counter of the last boot for which the key counts; 0 is no end.
	until uint64
}

func (k nodeKey) counts(boot string) bool {
	counter, _, err := ParseBootID(boot)
	return err == nil && (k.until == 0 || counter <= k.until)
}

// nodeKeys are all log keys that a node had, the one in use last.
type nodeKeys []nodeKey

func (k nodeKeys) with(key nodeKey) nodeKeys { return append(k.without(key.vkey), key) }

func (k nodeKeys) without(vkey string) nodeKeys {
	return slices.DeleteFunc(slices.Clone(k), func(o nodeKey) bool { return o.vkey == vkey })
}

// A nodeVerifier is a node that had several keys: as a verifier it is the one in
// use, but what the node signed is opened with whichever signed it.
type nodeVerifier struct {
	nodeKey // in use
	all     nodeKeys
}

// keysOf are the keys that a node's verifier stands for.
func keysOf(node note.Verifier) nodeKeys {
	if v, ok := node.(*nodeVerifier); ok {
		return v.all
	}
	return nodeKeys{{Verifier: node}}
}

// A FormerKey is a log key that a node had before the one that it has.
type FormerKey struct {
	Key string // a note verifier key
	// Until is the counter of the last boot for which it counts; 0 is no end.
	Until uint64
}

// ParseKeys reads a public.keys file: lines "node VKEY", "region VKEY" and
// "witness VKEY" with note verifier keys, empty lines, and comments that begin with #. A node may have
// several keys, the one in use last; one that was replaced may end with "until"
// and the counter of the last boot for which it counts.
func ParseKeys(file []byte) (*Keys, error) {
	k := &Keys{}
	lines := bufio.NewScanner(bytes.NewReader(file))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := k.parse(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return k, lines.Err()
}

func (k *Keys) parse(line string) (err error) {
	role, rest, _ := strings.Cut(line, " ")
	vkey, bound, bounded := strings.Cut(rest, " until ")
	var until uint64
	if bounded {
		if until, err = strconv.ParseUint(bound, 10, 63); err == nil && until == 0 {
			err = errors.New("boots count from 1")
		}
		if err != nil {
			return fmt.Errorf("until %.20q: %w", bound, err)
		}
	}
	switch {
	case role == "node":
		return k.addNode(FormerKey{vkey, until})
	case role == "region" && !bounded:
		return k.AddRegion(vkey)
	case role == "witness" && !bounded:
		return k.AddWitness(vkey)
	}
	return fmt.Errorf("%.20q is not node, region or witness", role)
}

// AddNode trusts a log key of a node, beside those that it had before.
func (k *Keys) AddNode(vkey string) error { return k.addNode(FormerKey{Key: vkey}) }

// SetNode trusts the log key of a node in the place of those that it had, which
// go on to count for what they signed, as former says.
func (k *Keys) SetNode(vkey string, former ...FormerKey) error {
	for _, f := range former {
		if err := k.addNode(f); err != nil {
			return err
		}
	}
	return k.AddNode(vkey)
}

func (k *Keys) addNode(key FormerKey) error {
	v, err := note.NewVerifier(key.Key)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	parts := strings.Split(v.Name(), "/")
	if len(parts) != 3 || parts[0] != "holdfast" || !ValidName(parts[1]) || !ValidName(parts[2]) {
		return fmt.Errorf("key name %.200q is not that of a node", v.Name())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.nodes == nil {
		k.nodes = map[string]nodeKeys{}
	}
	if have := k.nodes[v.Name()]; len(have) == maxNodeKeys && len(have.without(key.Key)) == maxNodeKeys {
		return fmt.Errorf("more than %d keys for %s", maxNodeKeys, v.Name())
	}
	k.nodes[v.Name()] = k.nodes[v.Name()].with(nodeKey{v, key.Key, key.Until})
	return nil
}

// maxNodeKeys bounds the keys of one node.
const maxNodeKeys = 64

// AddRegion trusts the ledger key of a region.
func (k *Keys) AddRegion(vkey string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.regions.add("region", vkey)
}

// AddWitness trusts the key of a witness.
func (k *Keys) AddWitness(vkey string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.witnesses.add("witness", vkey)
}

// Node returns the log key of a node, or nil. What the node signed with a key that
// it had before is opened with it too, as far as that counts.
func (k *Keys) Node(tenant, node string) note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch all := k.nodes[NodeKeyName(tenant, node)]; {
	case len(all) == 0:
		return nil
	case len(all) == 1 && all[0].until == 0:
		return all[0].Verifier
	default:
		return &nodeVerifier{all[len(all)-1], all}
	}
}

// Region returns the key of a region's ledger, or nil.
func (k *Keys) Region(tenant, region string) note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if s, ok := k.regions[RegionKeyName(tenant, region)]; ok {
		return s.Verifier
	}
	return nil
}

// Regions returns the keys of all regions of a tenant, by name.
func (k *Keys) Regions(tenant string) []note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.regions.named(RegionKeyName(tenant, ""))
}

// Witnesses returns the keys of all witnesses of a tenant, by name.
func (k *Keys) Witnesses(tenant string) []note.Verifier {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.witnesses.named(WitnessKeyName(tenant, ""))
}

// nodeNames are the key names of the nodes that are trusted, sorted.
func (k *Keys) nodeNames() []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return sortedKeys(k.nodes)
}

// File returns the keys as a public.keys file that ParseKeys reads.
func (k *Keys) File() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out strings.Builder
	out.WriteString("# Holdfast public keys: all that offline verification trusts.\n")
	for _, name := range sortedKeys(k.nodes) {
		for _, key := range k.nodes[name] {
			out.WriteString("node " + key.vkey)
			if key.until > 0 {
				fmt.Fprintf(&out, " until %d", key.until)
			}
			out.WriteString("\n")
		}
	}
	return []byte(out.String() + k.regions.lines("region") + k.witnesses.lines("witness"))
}
