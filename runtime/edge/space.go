package edge

// TrimOnOneReceipt reports whether the release in force permits that records which
// one region alone has counter-signed are given up when room runs out.
func (n *Node) TrimOnOneReceipt() bool {
	l := n.live.Load()
	return l.set != nil && l.rel.TrimOnOneReceipt
}
