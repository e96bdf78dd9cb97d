package edge

import (
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// What is older than the node tells apart is not known; of what it tells apart
// nothing is taken for something else.
func TestDecisionsAreTold(t *testing.T) {
	n := &Node{}
	plain := &decide.Point{}
	masked := &decide.Point{Masks: mask.Compile([]bundle.Mask{{Path: "/id", Action: bundle.MaskDrop}})}
	const last = 3 * rememberedDecisions
	for seq := uint64(2); seq <= last; seq += 2 {
		p := plain
		if seq%4 == 0 {
			p = masked
		}
		n.decided(p, audit.Ref{Boot: "b", Seq: seq})
	}
	d := n.decisions.Load()
	for seq := uint64(1); seq <= last; seq++ {
		is, masks, known := d.find(seq)
		old := seq+rememberedDecisions <= last
		if known == old || known && (is != (seq%2 == 0) || masks != (seq%4 == 0)) {
			t.Fatalf("%d: %t %t %t", seq, is, masks, known)
		}
	}
	n.decided(plain, audit.Ref{Boot: "c", Seq: 3})
	if d := n.decisions.Load(); d.boot != "c" || d.highest.Load() != 3 {
		t.Errorf("%s to %d", d.boot, d.highest.Load())
	}
	if _, _, known := (*decisions)(nil).find(1); known {
		t.Error("known of no decisions at all")
	}
}
