package compiler

import (
	"strconv"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// A document is one file of a policy's folder, YAML or JSON.
type document struct{ yamlfile.File }

// fuel reads a number of units.
func (d *document) fuel(n *yamlfile.Node, into *uint64) error {
	n = yamlfile.Resolve(n)
	u, err := strconv.ParseUint(n.Value, 10, 64)
	if n.Tag != "!!int" || err != nil || u == 0 || u > abi.MaxFuel {
		return d.Fail(n, "fuel is a number of units from 1 to %d", abi.MaxFuel)
	}
	*into = u
	return nil
}
