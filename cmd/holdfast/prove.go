package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// prove exports every node's journal and every region's ledger, has a separate
// process verify each with public keys only, and looks in each for every record
// that the clients hold in their hands. The fleet has stopped.
func (s *story) prove(ctx context.Context, regions []string) error {
	s.chapter("The proof that no record is missing")
	layout := assembly.Layout{Dir: s.cfg.Dir}
	if s.planted != nil {
		if err := s.planted(layout); err != nil {
			return err
		}
	}
	root := filepath.Join(s.cfg.Dir, "exports")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	journals := filepath.Join(root, "journals")
	if err := assembly.ExportJournals(layout, journals); err != nil {
		return err
	}
	exports := map[string]string{} // region: folder
	for _, region := range regions {
		exports[region] = filepath.Join(root, region)
		if err := assembly.Export(layout, exports[region], region, ""); err != nil {
			return err
		}
	}
	s.result.Verified = true
	s.result.Records.Regions = map[string]uint64{}
	found, err := s.inspect(ctx, layout, "journals", journals)
	if err != nil {
		return err
	}
	s.result.Records.Journal, s.result.Records.Admin = found.decisions, found.others
	for _, region := range regions {
		found, err := s.inspect(ctx, layout, "region "+region, exports[region])
		if err != nil {
			return err
		}
		s.result.Records.Regions[region] = found.decisions
	}
	fsyncs, err := measureFsync(s.cfg.Dir, fsyncProbes)
	s.result.Fsync = quantiles{P50: micros(quantile(fsyncs, 0.5)), P99: micros(quantile(fsyncs, 0.99))}
	return err
}

// inspect verifies one export in another process and counts, in this one, what
// the clients hold and the export lacks or has otherwise.
func (s *story) inspect(ctx context.Context, layout assembly.Layout, name, dir string) (found, error) {
	report, err := verifyElsewhere(ctx, dir, layout.PublicKeys())
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", name, err)
	}
	r := &s.result.Records
	for _, n := range report.Nodes {
		for _, b := range n.Boots {
			r.Gaps += count(b.Gaps)
			r.Altered += count(b.Altered) + count(b.Forks)
			r.Doubled += count(b.Doubled)
		}
	}
	s.result.Verified = s.result.Verified && report.Verdict == audit.VerdictComplete
	f, err := find(dir, layout.PublicKeys())
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", name, err)
	}
	s.compare(f)
	s.say("%-10s %s: %d decision records, %d others, %d files checked", name, report.Verdict, f.decisions, f.others, report.Files.Checked)
	for _, p := range report.Problems {
		s.say("%s %s: %s", s.out.red("!"), p.Where, p.Reason)
	}
	return f, nil
}

// compare looks for what the clients hold in what an export proves to hold.
func (s *story) compare(f found) {
	for record, leaf := range s.tally.answered {
		switch there, ok := f.leaves[record]; {
		case !ok:
			s.result.Records.Lost++
		case there != leaf:
			s.result.Records.Altered++
		}
	}
}

func count(ranges []audit.Range) (n uint64) {
	for _, r := range ranges {
		n += r.To - r.From + 1
	}
	return n
}

// verifyElsewhere runs `holdfast ledger verify` as a process of its own, which
// is given the export and the public keys and nothing else.
func verifyElsewhere(ctx context.Context, dir, keys string) (*audit.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "ledger", "verify", dir, "--keys", keys, "-o", "json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == exitCheck) {
		return nil, fmt.Errorf("ledger verify: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var report audit.Report
	if jsonErr := json.Unmarshal(stdout.Bytes(), &report); jsonErr != nil {
		return nil, fmt.Errorf("ledger verify: %w: %s", jsonErr, strings.TrimSpace(stderr.String()))
	}
	if (err == nil) != (report.Verdict == audit.VerdictComplete) {
		return nil, fmt.Errorf("ledger verify: verdict %s with exit code %d", report.Verdict, cmd.ProcessState.ExitCode())
	}
	return &report, nil
}

// found is what an export proves to hold.
type found struct {
	leaves    map[recordName]string // of decisions
	decisions uint64
	others    uint64
}

func find(dir, keysFile string) (found, error) {
	file, err := os.ReadFile(keysFile)
	if err != nil {
		return found{}, err
	}
	keys, err := audit.ParseKeys(file)
	if err != nil {
		return found{}, err
	}
	f := found{leaves: map[recordName]string{}}
	_, err = audit.VerifyEach(os.DirFS(dir), keys, func(node, boot string, r *audit.Record, leaf tlog.Hash) {
		if r.Kind != audit.KindDecision {
			f.others++
			return
		}
		f.decisions++
		f.leaves[recordName{node, boot, r.Seq}] = hex.EncodeToString(leaf[:])
	})
	return f, err
}

// measureFsync returns how long a 4 KiB write with its fsync takes in dir.
func measureFsync(dir string, n int) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	took := make([]time.Duration, n)
	block := make([]byte, 4096)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took[i] = time.Since(began)
	}
	return took, nil
}
