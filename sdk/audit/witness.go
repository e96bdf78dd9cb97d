package audit

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// WitnessKeyName is the note key name of a witness: somebody outside of the
// regions who counter-signs what they have counter-signed.
func WitnessKeyName(tenant, witness string) string {
	return "holdfast/" + tenant + "/witness/" + witness
}

// Witness verifies a receipt's signatures, of its node and of those regions that
// are given, and adds the witness's. Other signatures are dropped.
func Witness(msg []byte, node note.Verifier, regions []note.Verifier, witness note.Signer) ([]byte, error) {
	_, n, err := openNote(msg, node, regions...)
	if err != nil {
		return nil, err
	}
	n.UnverifiedSigs = nil
	return note.Sign(n, witness)
}

// witnesses are the keys of witnesses.
type witnesses struct {
	mu   sync.RWMutex               // guards what follows
	keys map[string]witnessVerifier // by key name
}

type witnessVerifier struct {
	note.Verifier
	vkey string
}

// AddWitness trusts the key of a witness.
func (k *Keys) AddWitness(vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("witness key: %w", err)
	}
	parts := strings.Split(v.Name(), "/")
	if len(parts) != 4 || parts[0] != "holdfast" || !ValidName(parts[1]) || parts[2] != "witness" || !ValidName(parts[3]) {
		return fmt.Errorf("key name %.200q is not that of a witness", v.Name())
	}
	k.witnesses.mu.Lock()
	defer k.witnesses.mu.Unlock()
	if have, ok := k.witnesses.keys[v.Name()]; ok && have.vkey != vkey {
		return fmt.Errorf("a second key for %s", v.Name())
	}
	if k.witnesses.keys == nil {
		k.witnesses.keys = map[string]witnessVerifier{}
	}
	k.witnesses.keys[v.Name()] = witnessVerifier{v, vkey}
	return nil
}

// Witnesses returns the keys of all witnesses of a tenant, by name.
func (k *Keys) Witnesses(tenant string) []note.Verifier {
	k.witnesses.mu.RLock()
	defer k.witnesses.mu.RUnlock()
	var out []note.Verifier
	for name, v := range k.witnesses.keys {
		if strings.HasPrefix(name, WitnessKeyName(tenant, "")) {
			out = append(out, v.Verifier)
		}
	}
	slices.SortFunc(out, func(a, b note.Verifier) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// lines are those of a public.keys file, sorted.
func (w *witnesses) lines() string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var out []string
	for _, v := range w.keys {
		out = append(out, "witness "+v.vkey+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "")
}
