package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/sdk/guest"
)

// starters has Rego's policy that builds and passes; those of the other
// languages are in sdk/guest.
//
//go:embed all:starter
var starters embed.FS

func initCommand(e *env) *cobra.Command {
	var lang, example string
	c := &cobra.Command{
		Use:   "init [NAME]",
		Short: "Begin a policy",
		Long: `Init writes a small policy that builds and passes its tests: source, holdfast.yaml, golden vectors, a README and, for other
languages than Rego, the guest SDK; nothing is fetched. NAME is the folder, its last part the policy's name. The folder is made when it
is missing; one that is not empty is refused.`,
		Example: "  holdfast init --lang rego tools && holdfast test tools --coverage\n  holdfast init --lang go --example residency eu-only && holdfast test eu-only",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.init(c.Context(), argument(args), lang, example)
		},
	}
	c.Flags().StringVar(&lang, "lang", compiler.Rego, "language: "+strings.Join(initLanguages(), ", "))
	c.Flags().StringVar(&example, "example", "", "policy to begin with: "+strings.Join(guest.Examples(), ", ")+" (not for rego; default "+guest.DefaultExample+")")
	complete(c, "lang", initLanguages())
	complete(c, "example", guest.Examples())
	return c
}

// complete has the shell complete a flag with one of the words.
func complete(c *cobra.Command, flag string, words []string) {
	err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // our own flag
	}
}

func initLanguages() []string {
	names := []string{compiler.Rego}
	for _, l := range guest.Languages() {
		names = append(names, l.Name)
	}
	return names
}

func (e *env) init(ctx context.Context, dir, lang, example string) error {
	name, err := policyName(dir)
	if err != nil {
		return err
	}
	files, err := project(lang, example, name)
	if err != nil {
		return err
	}
	if err := mustBeEmpty(dir); err != nil {
		return err
	}
	if err := writeAll(dir, files); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "wrote a policy into %s; now: holdfast test %s\n", dir, dir)
	e.printInstall(ctx, lang, dir)
	return nil
}

// validPolicyName is what the last part of a folder's path must be, because it
// becomes the name in holdfast.yaml.
var validPolicyName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func policyName(dir string) (string, error) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	name := filepath.Base(whole)
	if !validPolicyName.MatchString(name) {
		return "", fmt.Errorf("%q cannot be a policy's name: want 1 to 64 lower-case letters, digits, '.', '_' and '-', a letter or digit first", name)
	}
	return name, nil
}

// project returns the files of a new policy.
func project(lang, example, name string) (map[string][]byte, error) {
	if lang == compiler.Rego {
		if example != "" {
			return nil, errors.New("--example: Rego's starter is the only one in Rego")
		}
		return regoStarter()
	}
	l, ok := guest.Find(lang)
	if !ok {
		return nil, fmt.Errorf("--lang %q: want %s", lang, strings.Join(initLanguages(), ", "))
	}
	if example == "" {
		example = guest.DefaultExample
	}
	files, err := l.Project(example, name)
	if err != nil {
		return nil, fmt.Errorf("--example: %w", err)
	}
	return files, nil
}

func regoStarter() (map[string][]byte, error) {
	const root = "starter/rego"
	files := map[string][]byte{}
	err := fs.WalkDir(starters, root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[strings.TrimPrefix(name, root+"/")], err = starters.ReadFile(name)
		}
		return err
	})
	return files, err
}

func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty: give the policy a folder of its own", dir)
	}
	return nil
}

// writeAll writes the files into dir, or nothing: after an error all that it made
// is gone again, folders above dir too.
func writeAll(dir string, files map[string][]byte) error {
	var made []string
	err := func() error {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			to := filepath.Join(dir, filepath.FromSlash(name))
			folders, err := makeFolders(filepath.Dir(to))
			made = append(made, folders...)
			if err != nil {
				return err
			}
			if err := write(to, files[name]); err != nil {
				return err
			}
			made = append(made, to)
		}
		return nil
	}()
	if err == nil {
		return nil
	}
	for _, name := range slices.Backward(made) {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// makeFolders makes a folder and those above it that are missing, and returns
// what it made, outermost first.
func makeFolders(dir string) (made []string, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if above := filepath.Dir(dir); above != dir {
		if made, err = makeFolders(above); err != nil {
			return made, err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return made, err
	}
	return append(made, dir), nil
}

// printInstall says what to install where the language's compiler is missing.
// The policy is written all the same.
func (e *env) printInstall(ctx context.Context, lang, dir string) {
	l, ok := guest.Find(lang)
	if !ok {
		return
	}
	var missing *toolchain.MissingError
	if _, err := compiler.Toolchain(ctx, l.Config, dir); errors.As(err, &missing) {
		fmt.Fprintf(e.stdout, "before that: %v\n", missing)
	}
}
