package assembly

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// A ConfigError says what is wrong with a configuration file.
type ConfigError struct {
	File string
	Err  error
}

func (e *ConfigError) Error() string { return e.File + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// edgeFile is the configuration of `holdfastd edge`. Relative paths are
// relative to the file.
type edgeFile struct {
	Tenant    string `yaml:"tenant"`
	Node      string `yaml:"node"`       // the node's enrolled name
	Dir       string `yaml:"dir"`        // journal, keys, last-known-good release
	Listen    string `yaml:"listen"`     // HTTP front door, such as 127.0.0.1:8181
	TrustRoot string `yaml:"trust_root"` // file with the signed trust root
	// Either a folder of published releases, or regions.
	Folder  string       `yaml:"folder"`
	Regions []regionFile `yaml:"regions"` // the first is the home region
	NATS    *loginFile   `yaml:"nats"`    // with regions
}

type regionFile struct {
	Name string `yaml:"name"`
	Leaf string `yaml:"leaf"` // host:port of the hub's leaf listener
	Key  string `yaml:"key"`  // verifier key of the region's ledger
}

type loginFile struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

// hubFile is the configuration of `holdfastd hub`.
type hubFile struct {
	Tenant     string    `yaml:"tenant"`
	Region     string    `yaml:"region"`
	Dir        string    `yaml:"dir"`         // streams, ledger, the ledger's key
	Host       string    `yaml:"host"`        // address to listen on; 127.0.0.1 by default
	Clients    int       `yaml:"client_port"` // 0 takes a free one
	Leafs      int       `yaml:"leaf_port"`
	Websocket  int       `yaml:"websocket_port"`
	Join       string    `yaml:"join"`        // host:port of the hub to be a leaf of; empty for the first region
	Peers      []string  `yaml:"peers"`       // names of the other regions
	PublicKeys string    `yaml:"public_keys"` // file with the log keys of the nodes
	NATS       loginFile `yaml:"nats"`
}

// ReadEdgeConfig reads the YAML file of an edge. Unknown keys, wrong types and
// combinations that cannot work are a *ConfigError.
func ReadEdgeConfig(file string) (EdgeConfig, error) {
	var f edgeFile
	cfg, err := EdgeConfig{}, readYAML(file, &f)
	if err == nil {
		cfg, err = f.config(filepath.Dir(file))
	}
	if err != nil {
		return EdgeConfig{}, &ConfigError{file, err}
	}
	return cfg, nil
}

func (f *edgeFile) config(base string) (cfg EdgeConfig, err error) {
	err = errors.Join(
		checkName("tenant", f.Tenant), checkName("node", f.Node),
		required("dir", f.Dir), required("trust_root", f.TrustRoot), checkAddress("listen", f.Listen),
	)
	switch {
	case err != nil:
		return cfg, err
	case (f.Folder == "") == (len(f.Regions) == 0):
		return cfg, errors.New("give either folder or regions: where releases come from")
	case len(f.Regions) > 0 && f.NATS == nil:
		return cfg, errors.New("nats: user and password_file are required with regions")
	}
	cfg = EdgeConfig{Tenant: f.Tenant, Node: f.Node, Dir: within(base, f.Dir), Listen: f.Listen}
	envelope, err := os.ReadFile(within(base, f.TrustRoot))
	if err != nil {
		return cfg, fmt.Errorf("trust_root: %w", err)
	}
	if cfg.Root, err = bundle.OpenTrustRoot(envelope, time.Now()); err != nil {
		return cfg, fmt.Errorf("trust_root: %w", err)
	}
	if cfg.Root.Tenant != f.Tenant {
		return cfg, fmt.Errorf("trust_root: is of tenant %q, not %q", cfg.Root.Tenant, f.Tenant)
	}
	if f.Folder != "" {
		cfg.Folder = within(base, f.Folder)
		if info, err := os.Stat(cfg.Folder); err != nil || !info.IsDir() {
			return cfg, fmt.Errorf("folder: %s is not a folder of published releases", cfg.Folder)
		}
		return cfg, nil
	}
	for _, r := range f.Regions {
		if err := errors.Join(checkName("region name", r.Name), checkAddress("leaf of region "+r.Name, r.Leaf), required("key of region "+r.Name, r.Key)); err != nil {
			return cfg, err
		}
		if _, err := note.NewVerifier(r.Key); err != nil {
			return cfg, fmt.Errorf("key of region %s: %w", r.Name, err)
		}
		cfg.Regions = append(cfg.Regions, RegionLink(r))
	}
	cfg.Login, err = f.NATS.login(base, f.Tenant)
	return cfg, err
}

// ReadHubConfig reads the YAML file of a hub. Unknown keys, wrong types and
// combinations that cannot work are a *ConfigError.
func ReadHubConfig(file string) (HubConfig, error) {
	var f hubFile
	cfg, err := HubConfig{}, readYAML(file, &f)
	if err == nil {
		cfg, err = f.config(filepath.Dir(file))
	}
	if err != nil {
		return HubConfig{}, &ConfigError{file, err}
	}
	return cfg, nil
}

func (f *hubFile) config(base string) (cfg HubConfig, err error) {
	err = errors.Join(checkName("tenant", f.Tenant), checkName("region", f.Region), required("dir", f.Dir), required("public_keys", f.PublicKeys))
	for what, port := range map[string]int{"client_port": f.Clients, "leaf_port": f.Leafs, "websocket_port": f.Websocket} {
		if port < 0 || port > 65535 {
			err = errors.Join(err, fmt.Errorf("%s: %d is no port", what, port))
		}
	}
	if f.Join != "" {
		err = errors.Join(err, checkAddress("join", f.Join))
	}
	for _, p := range f.Peers {
		err = errors.Join(err, checkName("peer", p))
		if p == f.Region {
			err = errors.Join(err, fmt.Errorf("peers: %s is this region itself", p))
		}
	}
	if err != nil {
		return cfg, err
	}
	cfg = HubConfig{
		Tenant: f.Tenant, Region: f.Region, Dir: within(base, f.Dir), Host: f.Host,
		ClientPort: f.Clients, LeafPort: f.Leafs, WebsocketPort: f.Websocket, Join: f.Join, Peers: f.Peers,
	}
	file, err := os.ReadFile(within(base, f.PublicKeys))
	if err == nil {
		cfg.Keys, err = audit.ParseKeys(file)
	}
	if err != nil {
		return cfg, fmt.Errorf("public_keys: %w", err)
	}
	cfg.Login, err = f.NATS.login(base, f.Tenant)
	return cfg, err
}

func (l *loginFile) login(base, tenant string) (Login, error) {
	if err := errors.Join(required("nats: user", l.User), required("nats: password_file", l.PasswordFile)); err != nil {
		return Login{}, err
	}
	secret, err := os.ReadFile(within(base, l.PasswordFile))
	if err != nil {
		return Login{}, fmt.Errorf("nats: password_file: %w", err)
	}
	login := Login{Tenant: tenant, User: l.User, Password: strings.TrimSpace(string(secret))}
	return login, required("nats: the content of password_file", login.Password)
}

// goType is what the YAML library says of our types, which users do not know.
var goType = regexp.MustCompile(` in type \S+`)

// readYAML reads exactly one document with known keys; errors have line numbers.
func readYAML(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	} else if err != nil {
		return errors.New(goType.ReplaceAllString(err.Error(), ""))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document in the file")
	}
	return nil
}

func within(base, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}

func required(what, value string) error {
	if value == "" {
		return fmt.Errorf("%s is missing", what)
	}
	return nil
}

func checkName(what, s string) error {
	if !audit.ValidName(s) {
		return fmt.Errorf("%s %q: 1 to 64 letters, digits, dashes and underscores", what, s)
	}
	return nil
}

func checkAddress(what, s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%s %q is not host:port", what, s)
	}
	return nil
}
