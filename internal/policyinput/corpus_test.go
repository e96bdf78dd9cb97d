package policyinput

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/release"
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var update = flag.Bool("update", false, "write the documents, and the refusals that were seen, to testdata/policy-input; review the difference")

const folder = "../../testdata/policy-input"

// node is a loader with an old release in force.
type node struct {
	*loader.Loader
	m      *maker
	source string
	dir    string
	old    *bundle.SignedRelease
	lines  lines

	mu      sync.Mutex
	refused []string
}

// lines counts the lines of a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) refusals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), "release refused")
}

func newNode(t *testing.T, m *maker, source loader.Source) *node {
	t.Helper()
	n := &node{m: m, source: t.TempDir(), dir: t.TempDir()}
	m.must(os.Mkdir(filepath.Join(n.source, "packages"), 0o755))
	m.must(os.Mkdir(filepath.Join(n.source, "releases"), 0o755))
	for name, file := range m.packages {
		m.must(os.WriteFile(filepath.Join(n.source, "packages", name), file, 0o600))
	}
	e, err := engine.New(t.Context(), engine.Config{})
	m.must(err)
	t.Cleanup(func() { e.Close(context.Background()) })
	packages := loader.FolderSource{Dir: n.source}
	if r, ok := source.(*repeating); ok {
		r.Source = packages
	} else {
		source = packages
	}
	n.Loader, err = loader.New(t.Context(), loader.Config{
		Dir: n.dir, Root: m.trust, Engine: e, Source: source, Retry: time.Millisecond,
		Activate: func(context.Context, *decide.Set, *bundle.SignedRelease) error { return nil },
		Refused: func(_ wire.Digest, err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.refused = append(n.refused, n.clean(err))
		},
		Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&n.lines, nil)),
	})
	m.must(err)
	t.Cleanup(func() { m.must(n.Close(context.Background())) })
	env := m.both(m.release(5, nil))
	m.must(n.Offer(t.Context(), env))
	n.old, err = m.trust.OpenRelease(env, now)
	m.must(err)
	n.unmoved(t, "in the beginning")
	return n
}

// clean leaves out of an error what differs from run to run: folders, and the verb
// that the JSON library chooses at random for each process.
func (n *node) clean(err error) string {
	return strings.NewReplacer(n.source, "SOURCE", n.dir, "NODE", "\n", " | ", "unable to unmarshal", "cannot unmarshal").Replace(err.Error())
}

// unmoved fails unless the old release is in force and decides.
func (n *node) unmoved(t *testing.T, when string) {
	t.Helper()
	set := n.Set()
	if set == nil || set.Epoch != 5 || set.Release != n.old.Digest || n.Status().Epoch != 5 {
		t.Fatalf("%s: the old release is not in force: %+v", when, n.Status())
	}
	req, err := policy.ParseRequest(policy.PointCustom, []byte(`{"document":1}`))
	n.m.must(err)
	if out := set.Points[policy.PointCustom].Evaluate(req, now.UnixNano()); out.Decision.Verdict != policy.Allow {
		t.Fatalf("%s: the old release decides %+v", when, out)
	}
}

// ask offers a case to whom it is for.
func (n *node) ask(t *testing.T, c Case, doc []byte) (err error) {
	r := n.m.trust
	switch c.Asks {
	case "node":
		return n.Offer(t.Context(), doc)
	case "audience", "publish":
		s, err := r.OpenRelease(doc, now)
		if err != nil {
			return err
		}
		if c.Asks == "audience" {
			return s.For(map[string]string{"site": "zurich"})
		}
		return release.Follows(s, n.old)
	case "trust-root":
		_, err = bundle.OpenTrustRoot(doc, now)
	case "next":
		_, err = r.OpenNext(doc)
	case "heartbeat":
		_, err = r.OpenHeartbeat(doc)
	case "kill":
		_, err = r.OpenKill(doc)
	case "lift":
		_, err = r.OpenLift(doc)
	case "order":
		_, err = r.OpenOrder(doc)
	case "enrolment":
		_, err = r.OpenEnrolment(doc)
	default:
		t.Fatalf("%s asks %q", c.Name, c.Asks)
	}
	return err
}

// TestCorpus makes every document again, wants the committed bytes, and offers it:
// the refusal must be the one that corpus.txt states. A refusal for another reason
// is a hole. The old release is in force throughout.
func TestCorpus(t *testing.T) {
	m := newMaker(t)
	m.make()
	n := newNode(t, m, nil)
	for i, c := range m.cases {
		err := n.ask(t, c, m.documents[c.Name])
		if err == nil {
			t.Fatalf("%s was believed", c.Name)
		}
		m.cases[i].Refusal = n.clean(err)
		n.unmoved(t, c.Name)
	}
	if *update {
		m.write()
		return
	}
	stated, err := Cases()
	m.must(err)
	byName := map[string]Case{}
	for _, c := range stated {
		byName[c.Name] = c
	}
	if len(stated) != len(m.cases) || len(byName) != len(m.cases) {
		t.Errorf("corpus.txt states %d cases, %d are made", len(stated), len(m.cases))
	}
	for _, c := range m.cases {
		if want := byName[c.Name]; c != want {
			t.Errorf("%s:\n got  %+v\n want %+v", c.Name, c, want)
		}
		if doc, err := c.Document(); err != nil || !bytes.Equal(doc, m.documents[c.Name]) {
			t.Errorf("%s.dsse is not what is made: %v", c.Name, err)
		}
	}
	for name, file := range m.packages {
		if b, err := os.ReadFile(filepath.Join(folder, "packages", name)); err != nil || !bytes.Equal(b, file) {
			t.Errorf("packages/%s is not what is made: %v", name, err)
		}
	}
}

func (m *maker) write() {
	old, err := filepath.Glob(filepath.Join(folder, "*.dsse"))
	m.must(err)
	more, err := filepath.Glob(filepath.Join(folder, "packages", "*"))
	m.must(err)
	for _, path := range append(old, more...) {
		m.must(os.Remove(path))
	}
	m.must(os.MkdirAll(filepath.Join(folder, "packages"), 0o755))
	for name, doc := range m.documents {
		m.must(os.WriteFile(filepath.Join(folder, name+".dsse"), doc, 0o600))
	}
	for name, file := range m.packages {
		m.must(os.WriteFile(filepath.Join(folder, "packages", name), file, 0o600))
	}
	m.must(os.WriteFile(filepath.Join(folder, "corpus.txt"), Format(m.cases), 0o600))
}

// TestFolder leaves the documents that a node is asked about in the folder that it
// watches: what is refused for itself all at once, what is refused for its
// packages or its time one after the other, because a node tries one release of
// an epoch at a time. Each is told once, for its own reason, and nothing moves.
func TestFolder(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	m := newMaker(t)
	m.make()
	n := newNode(t, m, nil)
	n.run(t, loader.FolderSource{Dir: n.source})
	want := map[string]int{}
	leave := func(c Case) {
		doc, err := c.Document()
		m.must(err)
		m.must(os.WriteFile(filepath.Join(n.source, "releases", c.Name+".dsse"), doc, 0o600))
		want[c.Refusal]++
	}
	var tried []Case
	for _, c := range cases {
		switch {
		case c.Asks != "node" || c.Name == "type-of-a-trust-root": // which goes another way
		case strings.HasPrefix(c.Refusal, "package ") || strings.HasPrefix(c.Refusal, bundle.ErrNotYetValid.Error()):
			tried = append(tried, c)
		default:
			leave(c)
		}
	}
	n.await(t, want)
	if len(want) < 40 || len(tried) < 7 {
		t.Fatalf("only %d reasons, and %d releases to be tried", len(want), len(tried))
	}
	for _, c := range tried {
		leave(c)
		n.await(t, want)
		m.must(os.Remove(filepath.Join(n.source, "releases", c.Name+".dsse")))
	}
	n.unmoved(t, "in the end")
}

// run has the node follow a source until the test ends.
func (n *node) run(t *testing.T, source loader.Source) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = n.Run(ctx) })
	running.Go(func() { _ = source.Watch(ctx, n.Deliver) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// await returns when the reasons that were told are the wanted ones, as often.
func (n *node) await(t *testing.T, want map[string]int) {
	t.Helper()
	told := func() map[string]int {
		n.mu.Lock()
		defer n.mu.Unlock()
		got := map[string]int{}
		for _, r := range n.refused {
			got[r]++
		}
		return got
	}
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); !maps.Equal(told(), want); {
		select {
		case <-tick:
			n.unmoved(t, "while documents come")
		case <-deadline:
			got := told()
			for r := range got {
				want[r] += 0
			}
			for _, r := range slices.Sorted(maps.Keys(want)) {
				if got[r] != want[r] {
					t.Errorf("told %d times, want %d: %s", got[r], want[r], r)
				}
			}
			t.FailNow()
		}
	}
}

// TestOthersAreToldOnce delivers what is no release a hundred times each: trust
// roots and orders are refused, once in the log and once to Refused.
func TestOthersAreToldOnce(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	m := newMaker(t)
	n := newNode(t, m, nil)
	told := 0
	for _, c := range cases {
		doc, err := c.Document()
		m.must(err)
		switch bundle.Type(doc) {
		case bundle.OrderType:
			told++
		case bundle.TrustRootType:
			// A version that was passed is no news, and one that waits for those
			// before it may yet be right.
			if v := bundle.UnverifiedRootVersion(doc); v == 0 || v == 2 {
				told++
			}
		default:
			continue
		}
		for range 100 {
			n.Deliver(doc)
		}
		n.unmoved(t, c.Name)
	}
	n.lines.mu.Lock()
	lines := strings.Count(n.lines.text.String(), "document refused")
	n.lines.mu.Unlock()
	if told < 5 || n.tellings() != told || lines != told {
		t.Errorf("%d documents: told %d times, %d lines", told, n.tellings(), lines)
	}
}

// repeating is a source that delivers one document again and again.
type repeating struct {
	loader.Source
	document []byte
	times    int
	done     chan struct{}
}

func (r *repeating) Watch(ctx context.Context, deliver func([]byte)) error {
	for range r.times {
		deliver(r.document)
	}
	close(r.done)
	<-ctx.Done()
	return nil
}

// TestNoFlood: whoever repeats himself is told of once, in the log and to Refused.
func TestNoFlood(t *testing.T) {
	m := newMaker(t)
	bad := m.sign(bundle.ReleaseType, m.release(6, nil), m.author)
	source := &repeating{document: bad, times: 1000, done: make(chan struct{})}
	n := newNode(t, m, source)
	for range 1000 {
		if err := n.Offer(t.Context(), bad); !errors.Is(err, bundle.ErrThreshold) {
			t.Fatal(err)
		}
	}
	n.run(t, source)
	<-source.done
	n.unmoved(t, "after 2000 offers")
	if lines := n.lines.refusals(); lines != 1 || n.tellings() != 1 {
		t.Errorf("%d lines in the log, told %d times", lines, n.tellings())
	}
}

func (n *node) tellings() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.refused)
}
