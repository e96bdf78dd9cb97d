package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Bounds of what is kept of refused batches: beyond them they are logged and
// counted only. What does not even decode is kept up to keptGarbage bytes.
const (
	maxEvidence    = 1000
	perNodeKept    = 100
	keptGarbage    = 64 << 10
	maxUnknownWait = 1024 // boots of unknown nodes that are waited for
)

func tooLarge(err error) bool {
	return errors.Is(err, audit.ErrBatchTooLarge) || errors.Is(err, wire.ErrTooLarge)
}

// await remembers a boot of a node whose enrolment may come: its records are
// asked for then.
func (l *Ledger) await(key bootKey, size uint64) {
	l.mu.Lock()
	waiting := 0
	for other := range l.boots {
		if l.cfg.Keys.Node(l.cfg.Tenant, other.node) == nil {
			waiting++
		}
	}
	known := l.boots[key] != nil
	l.mu.Unlock()
	if known || waiting < maxUnknownWait {
		l.needs(l.state(key), size)
	}
}

// quarantine takes nothing more of a boot that contradicts itself.
func (l *Ledger) quarantine(key bootKey, no *refusal) {
	s := l.state(key)
	l.mu.Lock()
	s.forked = true
	l.mu.Unlock()
	l.alarm(key, no.reason, no.text)
}

// keepEvidence stores a refused batch and why, once.
func (l *Ledger) keepEvidence(frame []byte, key bootKey, no *refusal) error {
	frame, _ = l.strip(frame)
	path := l.archive.evidence(no.reason, frame)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	l.mu.Lock()
	room := l.evidence < maxEvidence && l.kept[key.node] < perNodeKept
	if room {
		l.kept[key.node]++
	}
	l.mu.Unlock()
	defer l.counted()
	if !room {
		return nil
	}
	if (no.reason == oversize || no.reason == malformed) && len(frame) > keptGarbage {
		frame = frame[:keptGarbage]
	}
	note := []byte(key.node + "/" + key.boot + "\n" + no.Error() + "\n")
	return errors.Join(create(path, frame), replace(strings.TrimSuffix(path, ".batch")+".txt", note))
}

func (l *Ledger) counted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evidence++
}

// keepStatement stores a signed statement that contradicts the archive.
func (l *Ledger) keepStatement(key bootKey, msg []byte, no *refusal) error {
	path := strings.TrimSuffix(l.archive.evidence(no.reason, msg), ".batch") + ".checkpoint"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	defer l.counted()
	note := []byte(key.node + "/" + key.boot + "\n" + no.Error() + "\n")
	return errors.Join(create(path, msg), replace(strings.TrimSuffix(path, ".checkpoint")+".txt", note))
}

// recall counts the evidence and quarantines the boots that forked.
func (l *Ledger) recall() error {
	dir := filepath.Join(l.cfg.Dir, evidenceDir)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		why, ok := isEvidence(e.Name())
		if !ok {
			continue
		}
		l.evidence++
		name := e.Name()
		note, err := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name))+".txt"))
		if err != nil {
			l.cfg.Log.Error("evidence without its words", "file", name, "err", err)
			continue
		}
		subject, _, _ := strings.Cut(string(note), "\n")
		node, boot, ok := strings.Cut(subject, "/")
		if !ok || !audit.ValidName(node) {
			continue
		}
		l.kept[node]++
		if _, _, err := audit.ParseBootID(boot); err == nil && (why == fork || why == futureBoot) {
			l.state(bootKey{node, boot}).forked = true
		}
	}
	return err
}
