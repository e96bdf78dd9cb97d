package vectors

import (
	"fmt"
	"slices"
)

// Bounds of a diff: how many equal lines stand around a difference, and how many
// pairs of lines are compared before a stretch is shown as replaced whole.
const (
	context  = 3
	maxPairs = 4 << 20
)

// Unified returns the difference as a unified diff of what was expected and what
// came, both as YAML: lines that begin with "-", "+", " " or "@@". What the
// vector leaves open is shown as it came. It is empty when the vector passed.
func (r VectorResult) Unified() []string {
	if r.Passed() {
		return nil
	}
	if r.want == nil { // the request itself was wrong
		return []string{"+" + r.Diff[1:]}
	}
	fill := r.got
	if r.err != nil {
		fill = nil
	}
	lines := lineDiff(yamlLines(r.expected(fill), ""), yamlLines(r.actual(), ""))
	return append([]string{"--- expected", "+++ actual"}, hunks(lines)...)
}

// lineDiff returns both texts as one, each line with the sign of where it is.
func lineDiff(a, b []string) []string {
	var head, tail []string
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head, a, b = append(head, " "+a[0]), a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail, a, b = append(tail, " "+a[len(a)-1]), a[:len(a)-1], b[:len(b)-1]
	}
	slices.Reverse(tail)
	return slices.Concat(head, middle(a, b), tail)
}

func middle(a, b []string) (lines []string) {
	i, j := 0, 0
	if len(a)*len(b) <= maxPairs {
		for common := commonLines(a, b); i < len(a) && j < len(b); {
			switch {
			case a[i] == b[j]:
				lines = append(lines, " "+a[i])
				i, j = i+1, j+1
			case common[i+1][j] >= common[i][j+1]:
				lines = append(lines, "-"+a[i])
				i++
			default:
				lines = append(lines, "+"+b[j])
				j++
			}
		}
	}
	for ; i < len(a); i++ {
		lines = append(lines, "-"+a[i])
	}
	for ; j < len(b); j++ {
		lines = append(lines, "+"+b[j])
	}
	return lines
}

// commonLines holds at [i][j] how many lines a[i:] and b[j:] have in common, in
// order.
func commonLines(a, b []string) [][]int32 {
	n := make([][]int32, len(a)+1)
	for i := range n {
		n[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	return n
}

// hunks leaves out equal lines that are far from every difference, and says then
// where each stretch begins.
func hunks(lines []string) (out []string) {
	near := make([]bool, len(lines))
	for i, l := range lines {
		if l[0] != ' ' {
			for k := max(0, i-context); k <= min(len(lines)-1, i+context); k++ {
				near[k] = true
			}
		}
	}
	whole := !slices.Contains(near, false)
	a, b := 1, 1 // line numbers of both sides
	for i, l := range lines {
		if near[i] && !whole && (i == 0 || !near[i-1]) {
			out = append(out, fmt.Sprintf("@@ -%d +%d @@", a, b))
		}
		if near[i] {
			out = append(out, l)
		}
		if l[0] != '+' {
			a++
		}
		if l[0] != '-' {
			b++
		}
	}
	return out
}
