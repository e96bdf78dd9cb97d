// Command holdfast is the tool of policy authors, operators and auditors.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/runtime/engine"
)

// Exit codes that scripts can rely on.
const (
	exitOK      = 0
	exitCheck   = 1 // a check failed
	exitUsage   = 2 // bad usage or bad input
	exitMissing = 3 // a toolchain is missing
)

func main() {
	engine.Worker()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program; tests call it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr}
	root := rootCommand(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		coded = &exitError{code: exitUsage, err: err}
	}
	if coded.err != nil {
		fmt.Fprintf(stderr, "holdfast: %v\n", coded.err)
	}
	return coded.code
}

// env is what commands touch of the outside world.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// An exitError ends the program with code; a nil err prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// checkFailed is for a claim that did not hold.
func checkFailed(format string, args ...any) error {
	return &exitError{code: exitCheck, err: fmt.Errorf(format, args...)}
}

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "A policy runtime for AI governance that stays on when everything under it fails",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.AddGroup(
		&cobra.Group{ID: "see", Title: "See it:"},
		&cobra.Group{ID: "author", Title: "Author:"},
		&cobra.Group{ID: "operate", Title: "Operate:"},
		&cobra.Group{ID: "audit", Title: "Audit:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("see", upCommand(e))
	add("author", initCommand(e), buildCommand(e), testCommand(e), benchCommand(e), inspectCommand(e), evalCommand(e))
	add("operate", keysCommand(e), trustCommand(e), releaseCommand(e), contextCommand(e), fleetCommand(e), killCommand(e), regionCommand(e), decideCommand(e), resultCommand(e), tailCommand(e))
	add("audit", ledgerCommand(e))
	return root
}

// outputFlag adds -o; only "json" and the empty word are accepted.
func outputFlag(c *cobra.Command, into *bool) {
	c.Flags().VarP(&outputValue{json: into}, "output", "o", `"json" for one JSON value on stdout`)
}

type outputValue struct{ json *bool }

func (v *outputValue) String() string {
	if v.json != nil && *v.json {
		return "json"
	}
	return ""
}

func (v *outputValue) Type() string { return "format" }

func (v *outputValue) Set(s string) error {
	if s != "json" {
		return fmt.Errorf("only json is known")
	}
	*v.json = true
	return nil
}
