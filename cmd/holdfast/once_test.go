package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

// TestMain lets the test binary be the program: the story starts itself as
// another process, and its children inherit the variable. What it compiles is
// kept in a folder of the run.
func TestMain(m *testing.M) {
	engine.Worker()
	const child = "HOLDFAST_CHILD"
	if os.Getenv(child) != "" {
		main()
	}
	if err := os.Setenv(child, "1"); err != nil {
		panic(err)
	}
	cache, err := os.MkdirTemp("", "holdfast-test-")
	if err == nil {
		err = keepCompilers(cache)
	}
	if err == nil {
		err = os.Setenv("XDG_CACHE_HOME", cache)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(cache); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// keepCompilers lets compilers use what they have in the user's cache folder: what
// is in there goes by its content, and to build it again takes half a minute.
func keepCompilers(cache string) error {
	user, err := os.UserCacheDir()
	if err != nil {
		return nil // then there is nothing to keep
	}
	if os.Getenv("GOCACHE") == "" {
		err = os.Setenv("GOCACHE", filepath.Join(user, "go-build"))
	}
	rust := filepath.Join("holdfast", "rust")
	return errors.Join(err, os.MkdirAll(filepath.Join(user, rust), 0o700), os.MkdirAll(filepath.Join(cache, "holdfast"), 0o700),
		os.Symlink(filepath.Join(user, rust), filepath.Join(cache, rust)))
}

// tell runs the story in a fresh folder, with a plant before the proof.
func tell(t *testing.T, regions, edges int, planted func(assembly.Layout) error) (result, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	e := &env{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
	s := &story{
		env: e, flags: upFlags{json: true}, out: newPrinter(&stderr), tally: newTally(), planted: planted,
		cfg: assembly.FleetConfig{Dir: t.TempDir(), Tenant: tenant, Regions: regions, Edges: edges, Log: slog.New(slog.DiscardHandler)},
	}
	err := s.tell(context.Background())
	var r result
	if jsonErr := json.Unmarshal(stdout.Bytes(), &r); jsonErr != nil {
		t.Fatalf("%v; no result: %v: %q\n%s", err, jsonErr, stdout.String(), stderr.String())
	}
	if t.Failed() || testing.Verbose() {
		t.Log(stderr.String())
	}
	return r, err
}

// The demo holds as it is.
func TestStoryOfRegions(t *testing.T) {
	r, err := tell(t, 2, 3, nil)
	if err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if r.Decisions.Total < 900 || r.Records.Answered != uint64(r.Decisions.Total) || r.Decisions.Durability != "synced" || r.Cut.Decisions == 0 {
		t.Errorf("%+v", r)
	}
	for region, n := range r.Records.Regions {
		if n != r.Records.Answered {
			t.Errorf("region %s holds %d of %d", region, n, r.Records.Answered)
		}
	}
}

// The same with an archived batch deleted in one region: it must not hold.
func TestStoryNoticesADeletedBatch(t *testing.T) {
	r, err := tell(t, 2, 3, func(l assembly.Layout) error { return removeOne(assembly.LedgerDir(l.Region("us"))) })
	var coded *exitError
	if !errors.As(err, &coded) || coded.code != exitCheck {
		t.Fatalf("a deleted batch: %v", err)
	}
	if r.Verified || r.Records.Lost == 0 || r.Records.Gaps == 0 {
		t.Errorf("%+v", r.Records)
	}
}

// removeOne deletes an archived batch.
func removeOne(dir string) error {
	var batches []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".batch") {
			batches = append(batches, path)
		}
		return err
	})
	if err == nil && len(batches) == 0 {
		err = errors.New("no batch to delete")
	}
	if err != nil {
		return err
	}
	return os.Remove(batches[len(batches)/2])
}

// One node, killed with SIGKILL in the middle of the work.
func TestStoryOfANodeAlone(t *testing.T) {
	r, err := tell(t, 0, 1, nil)
	if err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if r.Kill == nil || r.Kill.Signal != "SIGKILL" || r.Records.Answered != uint64(r.Decisions.Total) || r.Records.Journal < r.Records.Answered {
		t.Errorf("%+v", r)
	}
}

// A forged record in the clients' hands is noticed: the story compares with
// what was answered, not with what the product says of itself.
func TestStoryComparesWithTheAnswers(t *testing.T) {
	s := &story{tally: newTally()}
	s.tally.answered[recordName{"edge-1", "b", 7}] = "00"
	f := found{leaves: map[recordName]string{{"edge-1", "b", 7}: "11"}}
	s.compare(f)
	s.compare(found{})
	if s.result.Records.Altered != 1 || s.result.Records.Lost != 1 {
		t.Errorf("%+v", s.result.Records)
	}
}

func TestUpRefusesOddFlags(t *testing.T) {
	for _, args := range [][]string{
		{"up", "--once"}, {"up", "--demo", "--policy", "x"}, {"up", "--regions", "9"}, {"up", "--edges", "0"},
		{"up", "--policy", "/does/not/exist"}, {"up", "extra"}, {"up", "-o", "xml"},
	} {
		var stderr bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), io.Discard, &stderr); code != exitUsage || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
