package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
)

// nodeAlone is the story of nodes without regions: they run in a process of
// their own, which is killed with SIGKILL under load and started again.
func (s *story) nodeAlone(ctx context.Context) error {
	home, err := assembly.OpenHome(s.cfg)
	if err != nil {
		return err
	}
	s.chapter("%d node without any region, in a process of its own", s.cfg.Edges)
	p, err := startProcess(ctx, s.cfg)
	if err != nil {
		return err
	}
	defer func() { p.stop() }()
	publish := func(set *policySet) (assembly.Published, error) { return home.Publish(set.points, set.files) }
	if err := s.enforce(ctx, p.urls, publish, s.policies, "signed by an author and an approver"); err != nil {
		return err
	}
	asker, err := newAsker(p.urls, s.tally)
	if err != nil {
		return err
	}
	all := s.calls
	s.calls = all[:len(all)/2]
	if err := s.decideAll(ctx, asker); err != nil {
		return err
	}
	asker.close()
	s.calls = all[len(all)/2:]
	if p, err = s.kill(ctx, p); err != nil {
		return err
	}
	if asker, err = newAsker(p.urls, s.tally); err != nil {
		return err
	}
	defer asker.close()
	if err := s.decideAll(ctx, asker); err != nil {
		return err
	}
	s.calls = all
	if err := s.change(ctx, asker, p.urls, publish); err != nil {
		return err
	}
	if err := p.stop(); err != nil {
		return err
	}
	return s.prove(ctx, nil)
}

// kill ends the process with SIGKILL while it answers, and starts it again on
// the same folder. What it had answered until then counts; what it did not
// answer is no decision.
func (s *story) kill(ctx context.Context, p *process) (*process, error) {
	s.chapter("kill -9 in the middle of the work")
	asker, err := newAsker(p.urls, s.tally)
	if err != nil {
		return p, err
	}
	before, _ := s.tally.counts()
	s.tally.tolerant = true
	stop := make(chan struct{})
	var killed time.Time
	time.AfterFunc(time.Second, func() {
		killed = time.Now()
		_ = p.cmd.Process.Kill() // it may have ended by itself: then the next start shows it
		close(stop)
	})
	asker.during(ctx, s.calls, cutRate, stop)
	asker.close()
	s.tally.tolerant = false
	<-p.done
	if how := p.cmd.ProcessState.String(); how != "signal: killed" {
		return p, fmt.Errorf("the node did not die of kill -9: %s", how)
	}
	next, err := startProcess(ctx, s.cfg)
	if err != nil {
		return p, fmt.Errorf("start again after kill -9: %w", err)
	}
	if _, err := waitInForce(ctx, next.urls, s.result.Release.Epoch); err != nil {
		return next, err
	}
	after, _ := s.tally.counts()
	s.result.Kill = &killResult{Signal: "SIGKILL", DownMillis: millis(time.Since(killed)), Unanswered: s.tally.unanswered}
	s.say("%d decisions answered until then, %d requests without an answer; the same rules in force again after %.0f ms, from its own disk",
		after-before, s.tally.unanswered, s.result.Kill.DownMillis)
	return next, nil
}

// A process is a `holdfast up` of its own.
type process struct {
	cmd    *exec.Cmd
	urls   []string
	done   chan struct{} // closed when it has ended
	err    error         // how it ended; read after done
	stderr bytes.Buffer
}

// startProcess runs `holdfast up` on the fleet's folder, with more arguments, and
// returns when it answers.
func startProcess(ctx context.Context, cfg assembly.FleetConfig, more ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{})}
	args := []string{"up", "--until-eof", "--dir", cfg.Dir, "-o", "json", "--regions", strconv.Itoa(cfg.Regions), "--edges", strconv.Itoa(cfg.Edges)}
	p.cmd = exec.CommandContext(ctx, self, append(args, more...)...)
	p.cmd.Stderr = &p.stderr
	if _, err := p.cmd.StdinPipe(); err != nil { // it ends with us, even when we are killed
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, readErr := bufio.NewReader(stdout).ReadBytes('\n')
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	var r ready
	if err := errors.Join(readErr, json.Unmarshal(line, &r)); err != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(p.stderr.String()))
	}
	for _, n := range r.Nodes {
		p.urls = append(p.urls, n.HTTP)
	}
	return p, nil
}

// stop asks the process to end and returns how it did. Calling it again, or
// after a kill, changes nothing.
func (p *process) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	<-p.done
	if p.err != nil {
		return fmt.Errorf("holdfast up: %w: %s", p.err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}
