package engine

import "github.com/open-policy-agent/opa/v1/ast"

// pathFuel is the price of one node of one path.
const pathFuel = 100

// boundPaths goes the ways that graph.reachable_paths will go and charges for
// each: every path is copied at every step, and there can be exponentially many.
func boundPaths(i *instance, a arguments) error {
	graph, ok := a.terms[0].Value.(ast.Object)
	if !ok {
		return nil
	}
	walk := pathWalk{instance: i, graph: graph, reached: ast.NewSet()}
	neighbours(a.terms[1], func(node *ast.Term) {
		if graph.Get(node) != nil {
			walk.from(node, 1)
		}
	})
	return nil
}

type pathWalk struct {
	instance *instance
	graph    ast.Object
	reached  ast.Set
}

func (w *pathWalk) from(node *ast.Term, length uint64) {
	w.instance.charge(pathFuel * length)
	edges := w.graph.Get(node)
	if edges == nil {
		return
	}
	reached := w.reached
	w.reached = reached.Union(ast.NewSet(node))
	neighbours(edges, func(next *ast.Term) {
		w.instance.charge(pathFuel * length)
		if !w.reached.Contains(next) {
			w.from(next, length+1)
		}
	})
	w.reached = reached
}

func neighbours(collection *ast.Term, visit func(*ast.Term)) {
	switch c := collection.Value.(type) {
	case *ast.Array:
		c.Foreach(visit)
	case ast.Set:
		c.Foreach(visit)
	}
}
