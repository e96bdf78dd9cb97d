package ledger

import (
	"errors"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

func TestJudge(t *testing.T) {
	keys := &audit.Keys{}
	truth := newAuthor(t, keys, "e1")
	truth.batch(1, 40)
	lie := truth.fork(15)
	lie.batch(1, 40)
	rootOf := func(a *author, size int) tlog.Hash { return rootWithin(a.batch(1, 40), uint64(size)) }
	for _, c := range []struct {
		name       string
		archived   int
		from       *author
		first, end int
		want       reason
		fresh      [2]uint64 // first and last of what is new; zero for nothing
	}{
		{"the first batch", 0, truth, 1, 10, "", [2]uint64{1, 10}},
		{"the next batch", 10, truth, 11, 30, "", [2]uint64{11, 30}},
		{"one record", 20, truth, 21, 21, "", [2]uint64{21, 21}},
		{"not from the beginning", 0, truth, 2, 10, gap, [2]uint64{}},
		{"one record missing", 10, truth, 12, 30, gap, [2]uint64{}},
		{"the same again", 20, truth, 11, 20, "", [2]uint64{}},
		{"an older one again", 20, truth, 1, 5, "", [2]uint64{}},
		{"other boundaries", 20, truth, 5, 30, "", [2]uint64{21, 30}},
		{"from the beginning again", 20, truth, 1, 40, "", [2]uint64{21, 40}},
		{"fork beyond the archive", 20, lie, 21, 30, fork, [2]uint64{}},
		{"fork within the overlap", 20, lie, 11, 30, fork, [2]uint64{}},
		{"fork of the last record", 16, lie, 16, 16, fork, [2]uint64{}},
		{"fork in the middle", 40, lie, 11, 20, fork, [2]uint64{}},
		{"before the fork both agree", 20, lie, 1, 15, "", [2]uint64{}},
		{"a sequence used again", 30, lie, 21, 40, fork, [2]uint64{}},
	} {
		b := c.from.batch(c.first, c.end)
		cp, _, err := b.Verify(keys.Node(tenant, "e1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		h := head{uint64(c.archived), rootOf(truth, c.archived)}
		fresh, err := judge(h, b, cp, func(size uint64) (tlog.Hash, bool) { return rootOf(truth, int(size)), true })
		var no *refusal
		if got := reason(""); errors.As(err, &no) {
			if got = no.reason; got != c.want {
				t.Errorf("%s: refused as %s, want %q", c.name, got, c.want)
			}
			continue
		}
		if err != nil || c.want != "" {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
			continue
		}
		var got [2]uint64
		if fresh != nil {
			got = [2]uint64{fresh.First, fresh.Last()}
			if _, _, err := fresh.Verify(keys.Node(tenant, "e1"), nil); err != nil {
				t.Errorf("%s: what is new does not verify: %v", c.name, err)
			}
		}
		if got != c.fresh {
			t.Errorf("%s: new is %v, want %v", c.name, got, c.fresh)
		}
	}
}

func TestSpanNames(t *testing.T) {
	want := span{1, 1000}
	if got, ok := parseSpan(want.file()); !ok || got != want {
		t.Fatalf("%v, %v", got, ok)
	}
	for _, name := range []string{
		"", "receipt", "1-2.batch", want.file() + ".tmp", "x" + want.file(),
		span{0, 1}.file(), span{2, 1}.file(), "-0000000000000000001-00000000000000000002.batch",
	} {
		if s, ok := parseSpan(name); ok {
			t.Errorf("%q is read as %v", name, s)
		}
	}
}
