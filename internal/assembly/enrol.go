package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// An Enrol is what EnrolNode needs.
type Enrol struct {
	Node   string
	Labels map[string]string
	// LogKey is the verifier key of a log key that was made on the node's machine;
	// "" makes one in the node's folder.
	LogKey string
	// NewLogKey has the key that is in the node's folder replaced.
	NewLogKey bool
	// OldKeyUntil is the counter of the last boot for which the log key counts that
	// is replaced; 0 is no end.
	OldKeyUntil uint64
	Key         *bundle.PrivateKey // role enrol
	// Home is the region whose hubs are preferred; "" is the first.
	Home string
	// Listen is where the node answers; "" is 127.0.0.1:8181.
	Listen string
	// MinEpoch is the lowest epoch that it may begin with.
	MinEpoch uint64
}

// EnrolNode signs the enrolment of a node of the fleet kept in l, issues its
// credentials and writes its folder under nodes/, with its configuration and all
// that it needs. It returns the enrolment's envelope, which the hubs are to be
// given. Enrolling a node again replaces its labels, and its log key when there is
// a new one, under a higher serial, and keeps its credentials.
func EnrolNode(l Layout, e Enrol) (envelope []byte, dir string, err error) {
	d, err := readDescription(l)
	if err != nil {
		return nil, "", fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	if len(d.Servers) == 0 {
		return nil, "", fmt.Errorf("%s is a fleet that `holdfast up` made: its nodes are chosen with --edges", l.Dir)
	}
	if err := checkEnroller(e.Node, e.Key); err != nil {
		return nil, "", err
	}
	dir = l.Node(e.Node)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return nil, "", err
	}
	if e.LogKey, err = logKeyOf(d, e, filepath.Join(dir, "data")); err != nil {
		return nil, "", err
	}
	former, err := formerKeys(l, e)
	if err != nil {
		return nil, "", err
	}
	authority, err := auth.Open(l.Authority())
	if err != nil {
		return nil, "", err
	}
	user, err := issueOnce(authority, l, d.Tenant, e.Node, auth.Edge(d.Tenant, e.Node))
	if err != nil {
		return nil, "", err
	}
	serial, err := nextSerial(l, e.Node)
	if err != nil {
		return nil, "", err
	}
	secret, err := edge.LoadOrCreateSecret(l.Secret()) // fleets that were made before had none
	if err != nil {
		return nil, "", err
	}
	envelope, err = bundle.SignEnrolment(&bundle.Enrolment{
		Tenant: d.Tenant, Node: e.Node, Serial: serial, LogKey: e.LogKey, Labels: e.Labels, User: user, MinEpoch: e.MinEpoch, Secret: secret.ID(), Created: time.Now().UnixNano(), Former: former,
	}, e.Key)
	if err != nil {
		return nil, "", err
	}
	if err := writeNode(l, d, e, dir, envelope); err != nil {
		return nil, "", err
	}
	return envelope, dir, keepEnrolment(l, e.Node, serial, envelope)
}

// logKeyOf is the public form of the node's log key, which is made if need be.
func logKeyOf(d description, e Enrol, home string) (vkey string, err error) {
	name := audit.NodeKeyName(d.Tenant, e.Node)
	switch {
	case e.LogKey != "" && e.NewLogKey:
		return "", errors.New("the new log key is given, or made here: not both")
	case e.LogKey != "":
		if _, err := note.NewVerifier(e.LogKey); err != nil {
			return "", fmt.Errorf("log key: %w", err)
		}
		return e.LogKey, nil
	case e.NewLogKey:
		return journal.ReplaceKey(edge.KeyFile(home), edge.FormerKeysFile(home), name)
	}
	_, vkey, err = journal.LoadOrCreateKey(edge.KeyFile(home), name)
	return vkey, err
}

// formerKeys are those of the node's last enrolment from here, with its log key
// when another one is in its place now.
func formerKeys(l Layout, e Enrol) ([]bundle.FormerKey, error) {
	env, err := os.ReadFile(l.Enrolment(e.Node))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	last, err := bundle.UnverifiedEnrolment(env)
	if err != nil {
		return nil, err
	}
	former := slices.DeleteFunc(last.Former, func(f bundle.FormerKey) bool { return f.Key == e.LogKey })
	if last.LogKey != e.LogKey {
		former = append(former, bundle.FormerKey{Key: last.LogKey, Until: e.OldKeyUntil})
	}
	return former[max(0, len(former)-bundle.MaxFormerKeys):], nil
}

// RetireNode signs that a node is no longer of the fleet, and revokes its
// credentials. The hubs are to be given both: the envelope and the account's JWT.
func RetireNode(l Layout, node string, key *bundle.PrivateKey) (envelope []byte, account string, err error) {
	d, err := readDescription(l)
	if err != nil {
		return nil, "", fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	if err := checkEnroller(node, key); err != nil {
		return nil, "", err
	}
	last, err := os.ReadFile(l.Enrolment(node))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("node %s was never enrolled from %s", node, l.Dir)
	}
	if err != nil {
		return nil, "", err
	}
	// It is this folder's own, and the key that signed it may have been rotated in,
	// or out, since the folder's trust root.
	e, err := bundle.UnverifiedEnrolment(last)
	if err != nil {
		return nil, "", err
	}
	next := *e
	next.Serial, next.Retired, next.Created = e.Serial+1, true, time.Now().UnixNano()
	if envelope, err = bundle.SignEnrolment(&next, key); err != nil {
		return nil, "", err
	}
	authority, err := auth.Open(l.Authority())
	if err == nil && next.User != "" {
		account, err = authority.Revoke(d.Tenant, next.User)
	}
	if err == nil {
		err = os.Remove(l.Creds(node))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	return envelope, account, keepEnrolment(l, node, next.Serial, envelope)
}

// checkEnroller refuses what hubs would not take.
func checkEnroller(node string, key *bundle.PrivateKey) error {
	if key.Role != bundle.RoleEnrol {
		return fmt.Errorf("a key of role %s; want one of role %s", key.Role, bundle.RoleEnrol)
	}
	return bundle.CheckNode(node)
}

func keepEnrolment(l Layout, node string, serial uint64, envelope []byte) error {
	if err := writeNew(l.Enrolment(node), envelope); err != nil {
		return err
	}
	return writeNew(filepath.Join(filepath.Dir(l.Enrolment(node)), "serials", node), []byte(strconv.FormatUint(serial, 10)))
}

// nextSerial is one more than the serial of the node's last enrolment here.
func nextSerial(l Layout, node string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(l.Enrolment(node)), "serials", node))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n + 1, err
}

// edgeDoc is edge.yaml as it is written; config.go reads it.
type edgeDoc struct {
	Tenant    string      `yaml:"tenant"`
	Node      string      `yaml:"node"`
	Dir       string      `yaml:"dir"`
	Listen    string      `yaml:"listen"`
	TrustRoot string      `yaml:"trust_root"`
	Enrolment string      `yaml:"enrolment"`
	Secret    string      `yaml:"secret"`
	Regions   []regionDoc `yaml:"regions"`
	NATS      edgeNATSDoc `yaml:"nats"`
}

type regionDoc struct {
	Name  string   `yaml:"name"`
	Key   string   `yaml:"key"`
	Leafs []string `yaml:"leafs"`
}

type edgeNATSDoc struct {
	Creds string `yaml:"creds"`
	CA    string `yaml:"ca"`
}

func writeNode(l Layout, d description, e Enrol, dir string, envelope []byte) error {
	doc := edgeDoc{
		Tenant: d.Tenant, Node: e.Node, Dir: "data", Listen: e.Listen, TrustRoot: "trust-root.dsse", Enrolment: "enrolment.dsse", Secret: "tenant.secret",
		NATS: edgeNATSDoc{Creds: "node.creds", CA: "ca.pem"},
	}
	if doc.Listen == "" {
		doc.Listen = "127.0.0.1:8181"
	}
	regions := slices.Clone(d.Regions)
	if e.Home != "" {
		i := slices.Index(regions, e.Home)
		if i < 0 {
			return fmt.Errorf("region %q; there are %s", e.Home, strings.Join(regions, ", "))
		}
		regions = append([]string{e.Home}, slices.Delete(regions, i, i+1)...)
	}
	for _, r := range regions {
		region := regionDoc{Name: r, Key: d.Ledgers[r]}
		for _, s := range d.Servers {
			if s.Region == r {
				region.Leafs = append(region.Leafs, net.JoinHostPort(s.Host, strconv.Itoa(s.Leaf)))
			}
		}
		doc.Regions = append(doc.Regions, region)
	}
	text, err := yamlfile.Marshal(doc)
	if err != nil {
		return err
	}
	files := map[string][]byte{"edge.yaml": text, "enrolment.dsse": envelope}
	for name, from := range map[string]string{"ca.pem": l.CAFile(), "trust-root.dsse": l.TrustRoot()} {
		if files[name], err = os.ReadFile(from); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := writeNew(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	creds, err := os.ReadFile(l.Creds(e.Node))
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(l.Secret())
	if err != nil {
		return err
	}
	return writeSecrets(dir, map[string][]byte{"node.creds": creds, "tenant.secret": secret})
}
