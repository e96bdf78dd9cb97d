package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// starters has a folder for each language: a policy that builds and passes.
//
//go:embed all:starter
var starters embed.FS

func initCommand(e *env) *cobra.Command {
	var lang string
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Begin a policy",
		Long: `Init writes a small policy that builds and passes its tests: source, data, tests, golden vectors and holdfast.yaml. The
folder is made when it is missing; one that is not empty is refused.`,
		Example: "  holdfast init --lang rego tools && holdfast test tools --coverage",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return e.init(argument(args), lang) },
	}
	c.Flags().StringVar(&lang, "lang", "rego", "language: rego")
	return c
}

func (e *env) init(dir, lang string) error {
	starter, err := fs.Sub(starters, "starter/"+lang)
	if err == nil {
		_, err = fs.Stat(starter, ".")
	}
	if err != nil {
		return fmt.Errorf("--lang %q: want rego", lang)
	}
	if entries, err := os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	written, err := copyInto(dir, starter)
	if err != nil {
		for i := len(written) - 1; i >= 0; i-- {
			err = errors.Join(err, os.Remove(written[i]))
		}
		return err
	}
	fmt.Fprintf(e.stdout, "wrote a policy into %s; now: holdfast test %s\n", dir, dir)
	return nil
}

// copyInto copies from into dir and returns what it made, also after an error.
func copyInto(dir string, from fs.FS) (made []string, err error) {
	err = fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			if _, err := os.Stat(to); err == nil {
				return nil
			}
			made = append(made, to)
			return os.MkdirAll(to, 0o755)
		}
		raw, err := fs.ReadFile(from, name)
		if err == nil {
			err = write(to, raw)
		}
		if err == nil {
			made = append(made, to)
		}
		return err
	})
	return made, err
}
