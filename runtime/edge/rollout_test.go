package edge_test

import "github.com/holdfast-policy/holdfast/sdk/bundle"

func ringOf(names ...string) (rings []bundle.Ring) {
	for _, name := range names {
		rings = append(rings, bundle.Ring{Name: name, Percent: 100})
	}
	return rings
}
