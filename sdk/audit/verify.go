package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/inorder"
)

// The verdicts of a verification, worst first in the order in which one wins
// over another: altered, fork, gap, damaged, complete.
const (
	VerdictAltered  = "altered"
	VerdictFork     = "fork"
	VerdictGap      = "gap"
	VerdictDamaged  = "damaged"
	VerdictComplete = "complete"
)

// A Report is what a verification found, in the JSON of `ledger verify`.
type Report struct {
	Nodes   []NodeReport `json:"nodes"`
	Files   FileReport   `json:"files"`
	Verdict string       `json:"verdict"`
	// Absent names the nodes whose keys are known and of whom nothing is there.
	// An export of one node lacks the others; in a region's export it is a node
	// that never shipped, or whose records were taken away.
	Absent []string `json:"absent"`
	// Explained are the files of the export that explain what is not in it, and for
	// which the keys vouch.
	Explained []ExplainedBy `json:"explained,omitempty"`
	// Problems explains the first thousand findings, with the file or boot each
	// is about.
	Problems []Problem `json:"problems"`
}

// A NodeReport is what was found of one node.
type NodeReport struct {
	Name  string       `json:"name"`
	Boots []BootReport `json:"boots"`
}

// A BootReport is what was found of one boot.
type BootReport struct {
	Boot string `json:"boot"`
	// From and To are the first and the last record that are proven.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Complete: every record from 1 to the highest size that any signed
	// statement claims is there, proven, once, and nothing contradicts it.
	Complete bool `json:"complete"`
	// Gaps are records that a signed statement claims and that are not there.
	Gaps []Range `json:"gaps"`
	// Forks are places where two signed statements contradict one another.
	Forks []Range `json:"forks"`
	// Altered are records whose bytes are not what was signed: the smallest
	// ranges that the signatures can tell apart.
	Altered []Range `json:"altered"`
	// Doubled are records that are there more than once, the same each time.
	Doubled []Range `json:"doubled"`
	// Missing are proven records of which a part is not there, and nothing in the
	// export explains that.
	Missing []Range `json:"parts_missing"`
	// Erased are proven records whose parts are not there because an erasure that
	// the keys vouch for names them; NotErased those that one names and that have
	// parts all the same.
	Erased    []Range `json:"parts_erased"`
	NotErased []Range `json:"not_erased"`
	// PartsExpired are proven records whose parts a region deleted because they
	// were old, by a statement that it signed; Expired are records that it deleted
	// as a whole.
	PartsExpired []Range `json:"parts_expired"`
	Expired      []Range `json:"expired"`
	// Records counts the proven records by kind.
	Records map[string]uint64 `json:"records"`
	// Cosigned is the largest size that each region counter-signed.
	Cosigned map[string]uint64 `json:"cosigned"`
	// Witnessed is the same of each witness.
	Witnessed map[string]uint64 `json:"witnessed,omitempty"`
	// AsOf is when the node signed the newest checkpoint that is there, by its
	// own clock (RFC 3339). The node may have decided since.
	AsOf string `json:"as_of,omitempty"`
}

// A FileReport counts the files of the export.
type FileReport struct {
	// Checked counts the files that were there and were read.
	Checked int `json:"checked"`
	// Damaged counts files that are missing, unlisted, unreadable or not what
	// the manifest says.
	Damaged int `json:"damaged"`
}

// A Problem is one thing that is not as it should be.
type Problem struct {
	Where  string `json:"where"`
	Reason string `json:"reason"`
}

// Options say how an export is verified. The zero value is for one that asks
// nothing but the report.
type Options struct {
	// Records is called for the records of each batch that were proven, boot by
	// boot, the youngest boot first. They are the callee's. nil is faster: then
	// records are checked without making values of them.
	Records func(Proven)
	// Progress is told now and then how many records were checked, and how many
	// bytes of files out of how many. nil means nobody is.
	Progress func(records uint64, bytes, of int64)
	// Workers check at once; 0 means as many as there are processors.
	Workers int
}

// Proven are proven records of one boot, in order, and their leaf hashes.
type Proven struct {
	Node, Boot string
	Records    []*Record
	Leaves     []tlog.Hash
}

// Verify checks an export offline against the public keys: every file of it,
// and of every boot each record, its place in the tree, the signatures, and
// the link to the boot before. Memory is bounded by a few batches for each
// processor, one window of blobs, and the number of files. The error is about
// reading the export at all; what is wrong with its content is in the report.
//
// What nothing in the export speaks of cannot be missed: when a node's last
// boots, or the last records of its last boot, were taken away together with
// every checkpoint that covers them, only somebody who holds a later checkpoint
// or an answer can tell.
func Verify(fsys fs.FS, keys *Keys) (*Report, error) {
	return VerifyWith(context.Background(), fsys, keys, Options{})
}

// VerifyEach is Verify and calls each for every record that it proved, boot by
// boot, the youngest boot first. The record is the callee's.
func VerifyEach(fsys fs.FS, keys *Keys, each func(node, boot string, r *Record, leaf tlog.Hash)) (*Report, error) {
	return VerifyWith(context.Background(), fsys, keys, Options{Records: func(p Proven) {
		for i, r := range p.Records {
			each(p.Node, p.Boot, r, p.Leaves[i])
		}
	}})
}

// VerifyWith is Verify with options. When ctx ends before it is done, its error
// is returned and there is no report.
func VerifyWith(ctx context.Context, fsys fs.FS, keys *Keys, options Options) (*Report, error) {
	if options.Workers == 0 {
		options.Workers = runtime.GOMAXPROCS(0)
	}
	v := &verifier{
		ctx: ctx, fsys: fsys, keys: keys, options: options, hurt: map[string]bool{}, removed: map[string]*removals{},
		report: &Report{Nodes: []NodeReport{}, Absent: []string{}, Problems: []Problem{}},
	}
	nodes, err := v.files()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	for _, node := range sortedKeys(nodes) {
		v.report.Nodes = append(v.report.Nodes, NodeReport{Name: node, Boots: v.node(node, nodes[node])})
	}
	for _, name := range keys.nodeNames() {
		if node := name[strings.LastIndexByte(name, '/')+1:]; nodes[node] == nil {
			v.report.Absent = append(v.report.Absent, node)
		}
	}
	if len(nodes) == 0 {
		v.damaged(nodesFolder, "there are no records")
	}
	v.report.Verdict = v.verdict()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return v.report, nil
}

// A verifier carries what one verification needs and finds.
type verifier struct {
	ctx     context.Context // of VerifyWith, which made it
	fsys    fs.FS
	keys    *Keys
	options Options
	report  *Report

	records   uint64
	bytes, of int64

	removed map[string]*removals // by tenant
	hurt    map[string]bool
}

// progress counts a batch and tells of it.
func (v *verifier) progress(o *opened) {
	v.records += uint64(len(o.found))
	v.bytes += int64(o.size)
	if v.options.Progress != nil {
		v.options.Progress(v.records, v.bytes, v.of)
	}
}

// maxProblems bounds the explanations, not the findings.
const maxProblems = 1000

func (v *verifier) problem(where, format string, args ...any) {
	if len(v.report.Problems) == maxProblems {
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{where, fmt.Sprintf(format, args...)})
}

// damaged counts a file once, for all that is wrong with it.
func (v *verifier) damaged(where, format string, args ...any) {
	if !v.hurt[where] {
		v.hurt[where] = true
		v.report.Files.Damaged++
	}
	v.problem(where, format, args...)
}

func (v *verifier) verdict() string {
	var altered, fork, gap, damaged bool
	for _, n := range v.report.Nodes {
		for _, b := range n.Boots {
			altered = altered || len(b.Altered) > 0
			fork = fork || len(b.Forks) > 0
			gap = gap || len(b.Gaps) > 0
			damaged = damaged || !b.Complete || len(b.Missing) > 0 || len(b.Expired) > 0
		}
	}
	switch {
	case altered:
		return VerdictAltered
	case fork:
		return VerdictFork
	case gap:
		return VerdictGap
	case damaged || v.report.Files.Damaged > 0:
		return VerdictDamaged
	}
	return VerdictComplete
}

// bootFiles are the files of one boot, in order of their names.
type bootFiles struct{ batches, checkpoints, sides []string }

// files checks every file against the manifest and sorts them by node and boot.
func (v *verifier) files() (map[string]map[string]*bootFiles, error) {
	info, err := fs.Lstat(v.fsys, manifestName)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", manifestName)
	}
	listed, err := readManifest(v.fsys)
	unseen := maps.Clone(listed)
	if v.report.Files.Checked++; err != nil {
		v.damaged(manifestName, "%v", err)
	}
	nodes := map[string]map[string]*bootFiles{}
	var walkErr error
	for f := range inorder.Map(v.options.Workers, v.walk(&walkErr), func(f walked) walked { return v.look(f, listed) }) {
		v.report.Files.Checked++
		if f.wrong != "" {
			v.damaged(f.name, "%s", f.wrong)
		}
		delete(unseen, f.name)
		if !f.regular {
			continue
		}
		if v.explain(f.name) {
			continue
		}
		if !place(nodes, f.name) {
			v.problem(f.name, "not a file of an export")
		} else if path.Ext(f.name) == batchSuffix {
			v.of += f.size
		}
	}
	for _, name := range sortedKeys(unseen) {
		v.damaged(name, "the file is missing")
	}
	return nodes, walkErr
}

// A walked is a file that is there.
type walked struct {
	name    string
	regular bool
	size    int64
	wrong   string
}

// walk yields the files of the export but for the manifest.
func (v *verifier) walk(failed *error) iter.Seq[walked] {
	return func(yield func(walked) bool) {
		*failed = fs.WalkDir(v.fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || name == manifestName {
				return err
			}
			if !yield(walked{name: name, regular: d.Type().IsRegular()}) {
				return fs.SkipAll
			}
			return v.ctx.Err()
		})
	}
}

// look holds a file against the manifest.
func (v *verifier) look(f walked, listed map[string]exportFile) walked {
	want, ok := listed[f.name]
	switch {
	case !f.regular: // a link or a pipe could lead anywhere, or never end
		f.wrong = "not a regular file"
		return f
	case !ok:
		f.wrong = "the manifest does not list the file"
		return f
	}
	file, err := v.fsys.Open(f.name)
	if err != nil {
		f.wrong = err.Error()
		return f
	}
	defer file.Close()
	h := sha256.New()
	f.size, err = io.Copy(h, io.LimitReader(file, want.size+1))
	switch {
	case err != nil:
		f.wrong = err.Error()
	case f.size != want.size || hex.EncodeToString(h.Sum(nil)) != want.digest:
		f.wrong = "the file is not what the manifest says"
	}
	return f
}

// place puts a file's name where it belongs, or reports false.
func place(nodes map[string]map[string]*bootFiles, name string) bool {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != nodesFolder || !ValidName(parts[1]) {
		return false
	}
	node, boot, base := parts[1], parts[2], parts[3]
	if _, _, err := ParseBootID(boot); err != nil {
		return false
	}
	if _, ok := leadingNumber(base); !ok {
		return false
	}
	if nodes[node] == nil {
		nodes[node] = map[string]*bootFiles{}
	}
	files := nodes[node][boot]
	if files == nil {
		files = &bootFiles{}
		nodes[node][boot] = files
	}
	switch path.Ext(base) {
	case batchSuffix:
		files.batches = append(files.batches, name)
	case checkpointSuffix:
		files.checkpoints = append(files.checkpoints, name)
	case sideSuffix:
		files.sides = append(files.sides, name)
	default:
		return false
	}
	return true
}

// leadingNumber reads the 20 digits that begin a file's name.
func leadingNumber(base string) (uint64, bool) {
	if len(base) < 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(base[:20], 10, 63)
	return n, err == nil
}

// node verifies a node's boots, the youngest first, because each names the end
// of the one before it.
func (v *verifier) node(node string, boots map[string]*bootFiles) []BootReport {
	claims, followers := map[string][]claim{}, map[string]int{}
	var out []BootReport
	for _, boot := range slices.Backward(sortedKeys(boots)) {
		b := newBootVerifier(v, node, boot, claims[boot])
		delete(claims, boot)
		out = append(out, b.verify(boots[boot]))
		if b.first == nil {
			continue
		}
		previous := b.first.Previous
		if later, twice := followers[previous]; twice {
			out[later].contradict(Range{1, 1})
			v.problem(path.Join(nodesFolder, node, out[later].Boot), "fork: it follows %q, as boot %s does", previous, boot)
		}
		followers[previous] = len(out) - 1
		if previous != "" {
			claims[previous] = append(claims[previous], claimsOf(boot, b.first)...)
		}
	}
	for _, boot := range sortedKeys(claims) {
		b := newBootVerifier(v, node, boot, claims[boot])
		v.problem(path.Join(nodesFolder, node, boot), "the boot is missing; boot %s follows it", claims[boot][0].by)
		out = append(out, b.verify(&bootFiles{}))
	}
	slices.SortFunc(out, func(a, b BootReport) int { return strings.Compare(a.Boot, b.Boot) })
	return out
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
