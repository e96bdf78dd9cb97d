package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// WitnessConfig is all that a witness needs.
type WitnessConfig struct {
	Tenant, Name string
	// Dir holds what it counter-signed and its key.
	Dir string
	// Regions are those it follows; their servers are URLs.
	Regions []string
	// Creds is the path of a reader's credentials; CA verifies the servers.
	Creds, CA string
	URLs      []string
	// Keys are the public keys of the nodes and regions.
	Keys        *audit.Keys
	LogLevel    string
	SetLogLevel func(string)
	Log         *slog.Logger
}

// ReadWitnessConfig reads the YAML file of a witness. Unknown keys and wrong types
// are a *ConfigError with the line.
func ReadWitnessConfig(file_ string) (WitnessConfig, error) {
	c := WitnessConfig{LogLevel: "info"}
	f, err := readConfig(file_, map[string]func(*configFile, *yamlfile.Node) error{
		"tenant": name(&c.Tenant), "witness": name(&c.Name), "dir": path(&c.Dir), "regions": names(&c.Regions),
		"creds": existing(&c.Creds), "ca": existing(&c.CA), "urls": urls(&c.URLs), "log": logLevel(&c.LogLevel),
		"public_keys": file(func(content []byte) (err error) { c.Keys, err = audit.ParseKeys(content); return err }),
	}, "tenant", "witness", "dir", "regions", "creds", "urls", "public_keys")
	if err == nil && len(c.Regions) == 0 {
		err = f.fail("regions", "at least one region")
	}
	return c, err
}

// WitnessKeyFile is where a witness whose folder is dir keeps its key.
func WitnessKeyFile(dir string) string { return filepath.Join(dir, "witness.key") }

// witnessDoc is witness.yaml as it is written; ReadWitnessConfig reads it.
type witnessDoc struct {
	Tenant  string   `yaml:"tenant"`
	Witness string   `yaml:"witness"`
	Dir     string   `yaml:"dir"`
	Regions []string `yaml:"regions"`
	Keys    string   `yaml:"public_keys"`
	Creds   string   `yaml:"creds"`
	CA      string   `yaml:"ca"`
	URLs    []string `yaml:"urls"`
}

// MakeWitness writes the folder of a witness of the fleet kept in l, under
// witnesses/, with its configuration and credentials, to be taken to a machine
// that is in no region. The witness makes its own key there.
// It knows the nodes that are enrolled now; made again, it knows those of then.
func MakeWitness(l Layout, witness string) (dir string, err error) {
	d, err := readDescription(l)
	if err != nil {
		return "", fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	if !audit.ValidName(witness) {
		return "", fmt.Errorf("witness %q: 1 to 64 letters, digits, dashes and underscores", witness)
	}
	if len(d.Servers) == 0 {
		return "", fmt.Errorf("%s is a fleet that `holdfast up` made: a witness is to be outside", l.Dir)
	}
	keys, err := enrolledKeys(l)
	if err != nil {
		return "", err
	}
	authority, err := auth.Open(l.Authority())
	if err != nil {
		return "", err
	}
	user := "witness-" + witness
	if _, err := issueOnce(authority, l, d.Tenant, user, auth.Reader(d.Tenant, user)); err != nil {
		return "", err
	}
	dir = filepath.Join(l.Dir, "witnesses", witness)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return "", err
	}
	creds, err := os.ReadFile(l.Creds(user))
	if err != nil {
		return "", err
	}
	ca, err := os.ReadFile(l.CAFile())
	if err != nil {
		return "", err
	}
	doc := witnessDoc{Tenant: d.Tenant, Witness: witness, Dir: "data", Regions: d.Regions, Keys: "public.keys", Creds: "reader.creds", CA: "ca.pem"}
	for _, s := range d.Servers {
		doc.URLs = append(doc.URLs, "tls://"+net.JoinHostPort(s.Host, strconv.Itoa(s.Client)))
	}
	text, err := yamlfile.Marshal(doc)
	if err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{"ca.pem": ca, "public.keys": keys.File(), "witness.yaml": text} {
		if err := writeNew(filepath.Join(dir, name), content); err != nil {
			return "", err
		}
	}
	return dir, writeSecrets(dir, map[string][]byte{"reader.creds": creds})
}

// enrolledKeys are the public keys of the fleet's regions and of the nodes that
// were enrolled from its folder.
func enrolledKeys(l Layout) (*audit.Keys, error) {
	file, err := os.ReadFile(l.PublicKeys())
	if err != nil {
		return nil, err
	}
	keys, err := audit.ParseKeys(file)
	if err != nil {
		return nil, err
	}
	enrolments, err := filepath.Glob(l.Enrolment("*"))
	if err != nil {
		return nil, err
	}
	for _, path := range enrolments {
		envelope, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		e, err := bundle.UnverifiedEnrolment(envelope) // this folder's own
		if err == nil {
			err = keyLineOf(e).trust(keys)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return keys, nil
}

// addWitness adds what a witness counter-signed, in its folder, to an export.
func addWitness(config string, w *audit.ExportWriter) error {
	cfg, err := ReadWitnessConfig(config)
	if err != nil {
		return err
	}
	return ledger.ExportWitness(cfg.Dir, w)
}

// A Witness counter-signs what regions counter-signed, outside of them.
type Witness struct {
	*ledger.Witness
	cfg     WitnessConfig
	vkey    string
	conn    *bus.Conn
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// StartWitness starts a witness; one that has no key makes one.
func StartWitness(ctx context.Context, cfg WitnessConfig) (*Witness, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	w := &Witness{cfg: cfg}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	key, vkey, err := journal.LoadOrCreateKey(WitnessKeyFile(cfg.Dir), audit.WitnessKeyName(cfg.Tenant, cfg.Name))
	if err != nil {
		return nil, err
	}
	w.vkey = vkey
	file, err := os.ReadFile(cfg.Creds)
	if err != nil {
		return nil, err
	}
	inbox, err := auth.Inbox(file)
	user, reader := strings.CutPrefix(inbox, auth.ReaderInbox(""))
	if err != nil || !reader {
		return nil, fmt.Errorf("%s: not the credentials of a reader: %w", cfg.Creds, err)
	}
	if w.conn, err = bus.Connect(ctx, bus.Config{URLs: cfg.URLs, Creds: cfg.Creds, CA: cfg.CA, Name: "witness " + cfg.Name, Log: cfg.Log}); err != nil {
		return nil, err
	}
	w.Witness, err = ledger.NewWitness(ledger.WitnessConfig{
		Dir: cfg.Dir, Tenant: cfg.Tenant, Key: key, Keys: cfg.Keys, Log: cfg.Log,
		Regions: jetstream.Regions{Conn: w.conn, Tenant: cfg.Tenant, User: user, Names: cfg.Regions},
		Alarm: func(a ledger.Alarm) {
			cfg.Log.Error("a region contradicts what was witnessed", "node", a.Node, "boot", a.Boot, "why", a.Text)
		},
	})
	if err != nil {
		w.conn.Close()
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.running.Go(func() {
		for running.Err() == nil {
			if err := w.Run(running); running.Err() == nil {
				cfg.Log.Error("witness stopped; again in a second", "err", err)
				pause(running, time.Second)
			}
		}
	})
	return w, nil
}

// VerifierKey is the witness's public key, for a public.keys file.
func (w *Witness) VerifierKey() string { return w.vkey }

// Ready returns nil: a witness has nothing to wait for.
func (w *Witness) Ready() error { return nil }

// Reload takes another log level.
func (w *Witness) Reload(file string) error {
	next, err := ReadWitnessConfig(file)
	if err != nil {
		return err
	}
	have, level := w.cfg, next.LogLevel
	sameKeys := string(have.Keys.File()) == string(next.Keys.File())
	for _, c := range []*WitnessConfig{&have, &next} {
		c.LogLevel, c.SetLogLevel, c.Log, c.Keys = "", nil, nil, nil
	}
	if !sameKeys || !reflect.DeepEqual(have, next) {
		return errors.New("what changed beside log needs a restart")
	}
	if w.cfg.SetLogLevel != nil {
		w.cfg.SetLogLevel(level)
	}
	return nil
}

// Close stops the witness.
func (w *Witness) Close() error {
	w.cancel()
	w.running.Wait()
	w.conn.Close()
	return nil
}
