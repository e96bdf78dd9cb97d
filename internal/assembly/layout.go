package assembly

import (
	"path/filepath"
	"strconv"
)

// A Layout says where a fleet that `holdfast up` keeps in one folder has what.
// A node's or region's folder is the same one that holdfastd takes as dir.
type Layout struct{ Dir string }

// PublicKeys is all that an outsider needs to verify the ledger.
func (l Layout) PublicKeys() string { return filepath.Join(l.Dir, "public.keys") }

// TrustRoot is the signed trust root that every node is given.
func (l Layout) TrustRoot() string { return filepath.Join(l.Dir, "trust-root.dsse") }

// Fleet is the description of the fleet, for the commands that take --dir.
func (l Layout) Fleet() string { return filepath.Join(l.Dir, "fleet.json") }

// Running says where a fleet answers; it is there only while the fleet runs.
func (l Layout) Running() string { return filepath.Join(l.Dir, "running.json") }

// PrivateKey is where the private key of a role is.
func (l Layout) PrivateKey(role string) string { return filepath.Join(l.Dir, "keys", role+".key") }

// Published is the folder source of a fleet without regions, and the
// publisher's own copy in any fleet.
func (l Layout) Published() string { return filepath.Join(l.Dir, "published") }

// Node is the folder of a node.
func (l Layout) Node(name string) string { return filepath.Join(l.Dir, "nodes", name) }

// Region is the folder of a region's hub.
func (l Layout) Region(name string) string { return filepath.Join(l.Dir, "regions", name) }

// NodeName is the name of the i-th node, from 1.
func NodeName(i int) string { return "edge-" + strconv.Itoa(i) }

// regionNames are the regions of a fleet on one machine, in order.
var regionNames = [...]string{"eu", "us"}
