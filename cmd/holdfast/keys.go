package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

func keysCommand(e *env) *cobra.Command {
	c := group("keys", "Make and show the keys of people, regions and nodes", "new or show")
	c.Long = `A key has one role and one person: root, author, approver, heartbeat (the person is the region), enrol, kill, data,
breakglass, log or witness. Its private file stays where it was made. What travels is its public line, which keys new
prints and keys show prints again; a trust root is made of public lines (holdfast trust init).

The role breakglass is a name so far: nothing may be signed in it.`
	c.AddCommand(keysNewCommand(e), keysShowCommand(e))
	return c
}

// group is a command that only holds others.
func group(use, short, which string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.Join(errors.New("say which: "+which), c.Usage())
		},
	}
}

// keyJSON is a key as commands print it.
type keyJSON struct {
	ID     string      `json:"id"`
	Role   bundle.Role `json:"role"`
	Person string      `json:"person"`
	Public string      `json:"public"`         // base64
	Line   string      `json:"line,omitempty"` // as trust init reads it
	File   string      `json:"file,omitempty"` // of the private key
}

func keyOf(k bundle.Key) keyJSON {
	return keyJSON{ID: k.ID, Role: k.Role, Person: k.Person, Public: base64.StdEncoding.EncodeToString(k.Public), Line: k.String()}
}

func keysNewCommand(e *env) *cobra.Command {
	var role, name, out string
	var asJSON bool
	c := &cobra.Command{
		Use:   "new --role ROLE --name PERSON --out FILE",
		Short: "Make a key pair",
		Long: `New writes a new private key into FILE, which must not be there yet, readable by its owner alone (0600), and prints the
public line. Give that line to those who keep the trust root.`,
		Example: "  holdfast keys new --role author --name ann --out ann.key > ann.pub\n  holdfast keys new --role heartbeat --name eu --out eu-heartbeat.key",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if role == "" || name == "" || out == "" {
				return fmt.Errorf("give --role (one of %s), --name and --out", words(bundle.Roles()))
			}
			r, err := bundle.ParseRole(role)
			if err != nil {
				return err
			}
			k, err := bundle.GenerateKey(r, name)
			if err != nil {
				return err
			}
			if err := k.WriteFile(out); errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%s is there already, and keys are never overwritten: name another file", out)
			} else if err != nil {
				return err
			}
			if asJSON {
				j := keyOf(k.Key)
				j.File = out
				return e.printJSON(j)
			}
			_, err = fmt.Fprintln(e.stdout, k.Key)
			return err
		},
	}
	c.Flags().StringVar(&role, "role", "", "what the key may sign")
	c.Flags().StringVar(&name, "name", "", "who holds it; for role heartbeat the region")
	c.Flags().StringVar(&out, "out", "", "file for the private key; must not exist")
	outputFlag(c, &asJSON)
	return c
}

func words[T ~string](list []T) string {
	var all []string
	for _, w := range list {
		all = append(all, string(w))
	}
	return strings.Join(all, ", ")
}

func keysShowCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "show FILE",
		Short:   "Print the public lines of a private key's file or of a file of public lines",
		Example: "  holdfast keys show ann.key > ann.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			keys, err := readKeys(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				list := []keyJSON{}
				for _, k := range keys {
					list = append(list, keyOf(k))
				}
				return e.printJSON(map[string]any{"keys": list})
			}
			for _, k := range keys {
				if _, err := fmt.Fprintln(e.stdout, k); err != nil {
					return err
				}
			}
			return nil
		},
	}
	outputFlag(c, &asJSON)
	return c
}

// readKeys reads the public keys of a file: public lines, comments that begin with
// # and empty lines, or a private key.
func readKeys(path string) ([]bundle.Key, error) {
	text, err := readBounded(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("holdfast private key")) {
		k, err := bundle.ReadPrivateKey(path)
		if err != nil {
			return nil, err
		}
		return []bundle.Key{k.Key}, nil
	}
	var keys []bundle.Key
	for n, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		k, err := bundle.ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w; holdfast keys show prints such lines", path, n+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: no public key in it; holdfast keys show prints such lines", path)
	}
	return keys, nil
}

// readPrivateKeys reads several private keys.
func readPrivateKeys(paths []string) (keys []*bundle.PrivateKey, err error) {
	for _, path := range paths {
		k, err := bundle.ReadPrivateKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// outputFlags is the flag -o that takes a file, the word json, or both.
type outputFlags []string

func (o *outputFlags) add(c *cobra.Command, usage string) {
	c.Flags().StringArrayVarP((*[]string)(o), "output", "o", nil, usage+`; "json" prints one JSON value, beside a file or alone`)
}

// split returns the file, "" for none, and whether JSON is asked for.
func (o outputFlags) split() (file string, asJSON bool, err error) {
	for _, out := range o {
		switch {
		case out == "json":
			asJSON = true
		case file != "":
			return "", false, fmt.Errorf("two output files, %s and %s", file, out)
		default:
			file = out
		}
	}
	return file, asJSON, nil
}
