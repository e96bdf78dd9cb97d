package engine

import (
	"errors"
	"text/template/parse"
)

// Bounds of a template. A range may go over a number, and one in another
// multiplies.
const (
	maxTemplateNumber = 1_000
	maxTemplateRanges = 2
)

var errTemplate = errors.New("a template may not define or call others, call printf or len, have a number above 1000, or a range in a range in a range")

// boundRender is for strings.render_template(template, variables).
func boundRender(i *instance, a arguments) error {
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(a.text(0), "", "", trees); err != nil {
		return nil // the built-in's own error
	}
	w := templateWalk{}
	if len(trees) > 1 || !w.list(tree.Root, 0) {
		return errTemplate
	}
	work := a.bytes[0] + a.bytes[1]
	for range w.ranges {
		work = product(work, max(a.bytes[1], maxTemplateNumber))
	}
	i.charge(work)
	return nil
}

type templateWalk struct{ ranges int } // the most within one another

func (w *templateWalk) list(list *parse.ListNode, ranges int) bool {
	if list == nil {
		return true
	}
	for _, node := range list.Nodes {
		if !w.node(node, ranges) {
			return false
		}
	}
	return true
}

func (w *templateWalk) node(node parse.Node, ranges int) bool {
	switch n := node.(type) {
	case *parse.ActionNode:
		return w.pipe(n.Pipe)
	case *parse.IfNode:
		return w.branch(&n.BranchNode, ranges)
	case *parse.WithNode:
		return w.branch(&n.BranchNode, ranges)
	case *parse.RangeNode:
		w.ranges = max(w.ranges, ranges+1)
		return ranges < maxTemplateRanges && w.branch(&n.BranchNode, ranges+1)
	case *parse.TemplateNode:
		return false
	}
	return true
}

func (w *templateWalk) branch(n *parse.BranchNode, ranges int) bool {
	return w.pipe(n.Pipe) && w.list(n.List, ranges) && w.list(n.ElseList, ranges)
}

func (w *templateWalk) pipe(pipe *parse.PipeNode) bool {
	for _, command := range pipe.Cmds {
		for _, argument := range command.Args {
			if !w.argument(argument) {
				return false
			}
		}
	}
	return true
}

func (w *templateWalk) argument(node parse.Node) bool {
	switch n := node.(type) {
	case *parse.PipeNode:
		return w.pipe(n)
	case *parse.ChainNode:
		return w.argument(n.Node)
	case *parse.NumberNode:
		return n.IsInt && n.Int64 <= maxTemplateNumber || !n.IsInt
	case *parse.IdentifierNode:
		return n.Ident != "printf" && n.Ident != "len"
	}
	return true
}
