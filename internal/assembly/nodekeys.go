package assembly

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// nodeKeys is the file of the log keys that enrolments brought, a node in a line.
// A hub that starts needs them before it hears its first enrolment: without a
// node's keys it knows neither its own archive of that node nor what comes from it.
type nodeKeys struct {
	file string
	into *audit.Keys

	mu    sync.Mutex // guards what follows
	lines [][]byte
}

// keyLine is a line of the file.
type keyLine struct {
	Key    string            `json:"key"`
	Former []audit.FormerKey `json:"former,omitempty"`
}

// openNodeKeys trusts the keys of the file.
func openNodeKeys(file string, into *audit.Keys) (*nodeKeys, error) {
	k := &nodeKeys{file: file, into: into}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range bytes.Lines(text) {
		// A damaged line is that of a node whose enrolment comes again.
		if l, err := parseKeyLine(line); err == nil && l.trust(into) == nil {
			k.lines = append(k.lines, bytes.TrimSpace(line))
		}
	}
	return k, nil
}

func parseKeyLine(line []byte) (l keyLine, err error) {
	err = json.Unmarshal(line, &l)
	return l, err
}

// enrolled trusts a node's log key from its enrolment on, and those before it for
// what they signed.
func (k *nodeKeys) enrolled(e *bundle.SignedEnrolment) error {
	l := keyLineOf(&e.Enrolment)
	return errors.Join(k.store(l), l.trust(k.into))
}

func keyLineOf(e *bundle.Enrolment) keyLine {
	l := keyLine{Key: e.LogKey}
	for _, f := range e.Former {
		l.Former = append(l.Former, audit.FormerKey(f))
	}
	return l
}

func (l keyLine) trust(keys *audit.Keys) error { return keys.SetNode(l.Key, l.Former...) }

// store puts a node's line in the place of the one that it had.
func (k *nodeKeys) store(l keyLine) error {
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.ContainsFunc(k.lines, func(have []byte) bool { return bytes.Equal(have, line) }) {
		return nil
	}
	name, _, _ := strings.Cut(l.Key, "+")
	lines := slices.DeleteFunc(slices.Clone(k.lines), func(have []byte) bool {
		old, _ := parseKeyLine(have)
		return strings.HasPrefix(old.Key, name+"+")
	})
	lines = append(lines, line)
	if err := writeNew(k.file, append(bytes.Join(lines, []byte("\n")), '\n')); err != nil {
		return err
	}
	k.lines = lines
	return nil
}
