package assembly

import (
	"path/filepath"
	"strconv"

	"github.com/holdfast-policy/holdfast/runtime/edge"
)

// A Layout says where a fleet that is kept in one folder has what. A node's or
// region's folder is the same one that holdfastd takes as dir.
type Layout struct{ Dir string }

// PublicKeys is all that an outsider needs to verify the ledger.
func (l Layout) PublicKeys() string { return filepath.Join(l.Dir, "public.keys") }

// TrustRoot is the signed trust root that every node is given.
func (l Layout) TrustRoot() string { return filepath.Join(l.Dir, "trust-root.dsse") }

// Fleet is the description of the fleet, for the commands that take --dir.
func (l Layout) Fleet() string { return filepath.Join(l.Dir, "fleet.json") }

// Running says where a fleet answers; it is there only while the fleet runs.
func (l Layout) Running() string { return filepath.Join(l.Dir, "running.json") }

// PrivateKey is where the private key of a role is, on a laptop.
func (l Layout) PrivateKey(name string) string { return filepath.Join(l.Dir, "keys", name+".key") }

// Secret is the tenant's secret, which every node is given.
func (l Layout) Secret() string { return edge.SecretFile(l.Dir) }

// Published is the folder source of a fleet without regions, and the
// publisher's own copy in any fleet.
func (l Layout) Published() string { return filepath.Join(l.Dir, "published") }

// Enrolment is the newest enrolment of a node.
func (l Layout) Enrolment(node string) string {
	return filepath.Join(l.Published(), "enrolments", node+".dsse")
}

// Authority is the folder of the NATS operator, accounts and users.
func (l Layout) Authority() string { return filepath.Join(l.Dir, "nats", "authority") }

// CA is the folder of the fleet's certificate authority.
func (l Layout) CA() string { return filepath.Join(l.Dir, "nats", "ca") }

// CAFile is the certificate that verifies the fleet's servers.
func (l Layout) CAFile() string { return filepath.Join(l.CA(), "ca.pem") }

// Creds is where the credentials of a user are.
func (l Layout) Creds(user string) string {
	return filepath.Join(l.Dir, "nats", "creds", user+".creds")
}

// Certificates is the folder of the servers' certificates.
func (l Layout) Certificates() string { return filepath.Join(l.Dir, "nats", "tls") }

// Node is the folder of a node.
func (l Layout) Node(name string) string { return filepath.Join(l.Dir, "nodes", name) }

// Region is the folder of a region's hub.
func (l Layout) Region(name string) string { return filepath.Join(l.Dir, "regions", name) }

// Hub is the folder that a hub server of a fleet is given.
func (l Layout) Hub(server string) string { return filepath.Join(l.Dir, "hubs", server) }

// NodeName is the name of the i-th node, from 1.
func NodeName(i int) string { return "edge-" + strconv.Itoa(i) }

// regionNames are the regions of a fleet on one machine, in order.
var regionNames = [...]string{"eu", "us"}
