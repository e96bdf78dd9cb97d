package assembly

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// A ConfigError says what is wrong with a configuration file, and where.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// maxConfig bounds a configuration file and each file that it names, in bytes.
const maxConfig = 1 << 20

// configFile is a configuration while it is read. Relative paths are relative to
// the file; deploy/edge.yaml and deploy/hub.yaml have every key.
type configFile struct {
	*yamlfile.File
	base string
	keys map[string]*yamlfile.Node // where each key of the root stands
	root *yamlfile.Node
}

// readConfig reads a file's keys, each with its reader; required ones must be there.
func readConfig(path string, readers map[string]func(*configFile, *yamlfile.Node) error, required ...string) (*configFile, error) {
	raw, err := readBounded(path)
	if err != nil {
		return nil, &ConfigError{err}
	}
	f := &configFile{File: &yamlfile.File{Name: path}, base: filepath.Dir(path), keys: map[string]*yamlfile.Node{}}
	if f.root, err = f.Parse(raw); err == nil && f.root == nil {
		err = fmt.Errorf("%s: the file is empty", path)
	}
	if err == nil {
		err = f.members(f.root, f.keys, readers, required...)
	}
	if err != nil {
		return nil, &ConfigError{err}
	}
	return f, nil
}

// members reads a mapping whose keys are those of readers.
func (f *configFile) members(n *yamlfile.Node, seen map[string]*yamlfile.Node, readers map[string]func(*configFile, *yamlfile.Node) error, required ...string) error {
	err := f.Members(n, func(key, value *yamlfile.Node) error {
		read, ok := readers[key.Value]
		if !ok {
			names := make([]string, 0, len(readers))
			for name := range readers {
				names = append(names, name)
			}
			slices.Sort(names)
			return f.Fail(key, "unknown key %q; want one of %s", key.Value, strings.Join(names, ", "))
		}
		if seen != nil {
			seen[key.Value] = key
		}
		return named(key.Value, read(f, value))
	})
	if err != nil {
		return err
	}
	for _, name := range required {
		if seen[name] == nil {
			return f.Fail(n, "%s is missing", name)
		}
	}
	return nil
}

// named says of which key an error is.
func named(key string, err error) error {
	var e *yamlfile.Error
	if errors.As(err, &e) {
		e.Reason = key + ": " + e.Reason
	}
	return err
}

// fail is an error at a key of the root, or at the file's beginning.
func (f *configFile) fail(key, format string, args ...any) error {
	n := f.keys[key]
	if n == nil {
		n = f.root
	}
	return &ConfigError{f.Fail(n, format, args...)}
}

// The readers of single values.

func name(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !audit.ValidName(*into) {
			return f.Fail(n, "%q: 1 to 64 letters, digits, dashes and underscores", *into)
		}
		return nil
	}
}

func names(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			*into = append(*into, "")
			err := name(&s)(f, n)
			(*into)[len(*into)-1] = s
			return err
		})
	}
}

// path reads the name of a file or folder.
func path(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !filepath.IsAbs(*into) {
			*into = filepath.Join(f.base, *into)
		}
		return nil
	}
}

// file reads a file that the configuration names, and hands its content on.
func file(take func([]byte) error) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var p string
		if err := path(&p)(f, n); err != nil {
			return err
		}
		content, err := readBounded(p)
		if err == nil {
			err = take(content)
		}
		if err != nil {
			return f.Fail(n, "%v", err)
		}
		return nil
	}
}

// existing is path for a file that must be readable.
func existing(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return file(func([]byte) error { return path(into)(f, n) })(f, n)
	}
}

func address(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(*into)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return f.Fail(n, "%q is not host:port", *into)
		}
		return nil
	}
}

func addresses(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			err := address(&s)(f, n)
			*into = append(*into, s)
			return err
		})
	}
}

func urls(into *[]string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		return f.Items(n, func(n *yamlfile.Node) error {
			var s string
			if err := f.Filled(n, &s); err != nil {
				return err
			}
			u, err := url.Parse(s)
			if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				return f.Fail(n, "not a nats://, tls://, ws:// or wss:// URL")
			}
			if u.User != nil {
				return f.Fail(n, "a user in the URL; credentials go into creds")
			}
			*into = append(*into, s)
			return nil
		})
	}
}

func port(into *int) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var v uint64
		err := f.Uint(n, &v, 0, 65535)
		*into = int(v)
		return err
	}
}

func truth(into *bool) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if n = yamlfile.Resolve(n); n.Tag != "!!bool" || n.Decode(into) != nil {
			return f.Fail(n, "true or false")
		}
		return nil
	}
}

func root(into **bundle.TrustRoot) func(*configFile, *yamlfile.Node) error {
	return file(func(envelope []byte) (err error) {
		*into, err = bundle.OpenTrustRoot(envelope, time.Now())
		return err
	})
}

// keyIn reads a private key of one role.
func keyIn(role bundle.Role, into **bundle.PrivateKey) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var p string
		if err := path(&p)(f, n); err != nil {
			return err
		}
		k, err := bundle.ReadPrivateKey(p)
		if err == nil && k.Role != role {
			err = fmt.Errorf("%s is a key of role %s, not %s", p, k.Role, role)
		}
		if err != nil {
			return f.Fail(n, "%v", err)
		}
		*into = k
		return nil
	}
}

func secretIn(into *string) func(*configFile, *yamlfile.Node) error {
	return file(func(content []byte) error {
		if *into = strings.TrimSpace(string(content)); *into == "" {
			return errors.New("the file is empty")
		}
		return nil
	})
}

func tlsFiles(into **auth.TLSFiles) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		files := &auth.TLSFiles{}
		*into = files
		seen := map[string]*yamlfile.Node{}
		return f.members(n, seen, map[string]func(*configFile, *yamlfile.Node) error{
			"ca": existing(&files.CA), "cert": existing(&files.Cert), "key": existing(&files.Key),
		}, "ca", "cert", "key")
	}
}

func logLevel(into *string) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		if err := f.Filled(n, into); err != nil {
			return err
		}
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, *into) {
			return f.Fail(n, "%q; debug, info, warn or error", *into)
		}
		return nil
	}
}

// readBounded reads a regular file of at most maxConfig bytes.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxConfig:
		return nil, fmt.Errorf("%s: %d bytes; at most %d", path, info.Size(), maxConfig)
	}
	return os.ReadFile(path)
}
