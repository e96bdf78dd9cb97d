package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// proveFlags are what is to be proved, from what, or which proof is to be checked.
type proveFlags struct {
	from, fleet, region, keys, answer, out, check string
	asJSON                                        bool
}

func proveCommand(e *env) *cobra.Command {
	var f proveFlags
	c := &cobra.Command{
		Use:   "prove NODE/BOOT/SEQ | --answer FILE | --check PROOF",
		Short: "Prove that one record is in the ledger, or check such a proof",
		Long: `Prove that a record is in the tree that its node signed, and show it.

The record is named by node, boot and seq, in one word or three, or by --answer: the JSON of an answer
as a node gave it. Then the record must also be the one whose leaf the answer
states, and say what the answer says. It is looked for in --from, the folder of an
export or of a region's ledger, or in the fleet of --dir: in the ledger of
--region (default: the first), or in the node's own journal where there are no
regions.

-o json has the request too, as far as its parts are there.

The proof is under the smallest checkpoint over the record that a region
counter-signed, if there is one, and else under one of the node alone. --out saves
it for somebody else, who checks it offline with --check and the public keys.

Exit code 0: proven; 1: it is not there, or is not what the answer says.`,
		Example: "  holdfast ledger prove --dir ./fleet edge-1/00000001-9f86d081884c7d65/12\n  holdfast ledger prove --dir ./fleet --answer answer.json --out 12.proof\n  holdfast ledger prove --check 12.proof --keys public.keys --answer answer.json",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.check != "" && len(args) == 0, f.check == "" && f.answer != "" && len(args) == 0, f.check == "" && f.answer == "" && (len(args) == 1 || len(args) == 3):
				return nil
			}
			return errNoName
		},
		RunE: func(_ *cobra.Command, args []string) error { return e.prove(args, &f) },
	}
	c.Flags().StringVar(&f.from, "from", "", "folder of an export, or of a region's ledger")
	c.Flags().StringVar(&f.fleet, "dir", "", "folder of the fleet")
	c.Flags().StringVar(&f.region, "region", "", "with --dir: in this region's ledger")
	c.Flags().StringVar(&f.keys, "keys", "", "file with the public keys of nodes and regions (default: those of --dir)")
	c.Flags().StringVar(&f.answer, "answer", "", "file with an answer's JSON, - for standard input")
	c.Flags().StringVar(&f.out, "out", "", "save the proof in this new file")
	c.Flags().StringVar(&f.check, "check", "", "check the proof in this file instead")
	outputFlag(c, &f.asJSON)
	return c
}

var errNoName = errors.New("name the record by NODE/BOOT/SEQ or by --answer, or a proof by --check")

// maxAnswer bounds the JSON of an answer; a decision is smaller than a record.
const maxAnswer = audit.MaxEntryBytes

func (e *env) prove(args []string, f *proveFlags) error {
	keys, err := publicKeys(f.keys, f.fleet)
	if err != nil {
		return err
	}
	var answer *policy.Answer
	if f.answer != "" {
		if answer, err = e.readAnswer(f.answer); err != nil {
			return err
		}
	}
	var p *audit.Proof
	if f.check != "" {
		p, err = readProof(f.check)
	} else {
		p, err = makeProof(args, f, keys, answer)
	}
	if errors.Is(err, audit.ErrNoRecord) {
		return &exitError{code: exitCheck, err: err}
	}
	if err != nil {
		return err
	}
	v, err := openProof(p, keys)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	if answer != nil {
		v.Against = v.against(answer)
	}
	if f.out != "" {
		if err := saveProof(f.out, p); err != nil {
			return err
		}
	}
	if f.asJSON {
		err = json.NewEncoder(e.stdout).Encode(v)
	} else {
		err = v.print(e)
	}
	if err == nil && len(v.Against) > 0 {
		return checkFailed("the record is not what the answer says")
	}
	return err
}

func (e *env) readAnswer(path string) (*policy.Answer, error) {
	text, err := e.readInput(path, maxAnswer)
	if err != nil {
		return nil, err
	}
	var a policy.Answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%s is not an answer of a node: %w", path, err)
	}
	if a.Node == "" {
		return nil, fmt.Errorf("%s is not an answer of a node: it names none", path)
	}
	if !a.Recorded {
		return nil, checkFailed("the answer says itself that it was not recorded")
	}
	return &a, nil
}

func readProof(path string) (*audit.Proof, error) {
	raw, err := readBounded(path, 2*audit.MaxEntryBytes)
	if err != nil {
		return nil, err
	}
	p, err := audit.DecodeProof(raw)
	if err != nil {
		return nil, checkFailed("%s: %w", path, err)
	}
	return p, nil
}

func makeProof(args []string, f *proveFlags, keys *audit.Keys, answer *policy.Answer) (*audit.Proof, error) {
	var node, boot string
	var seq uint64
	var err error
	if answer != nil {
		node, boot, seq = answer.Node, answer.Boot, answer.Seq
	} else {
		name := args
		if len(args) == 1 {
			name = strings.Split(args[0], "/")
		}
		if len(name) != 3 {
			return nil, errNoName
		}
		if seq, err = strconv.ParseUint(name[2], 10, 63); err != nil {
			return nil, fmt.Errorf("SEQ: %.80q is not a number", name[2])
		}
		node, boot = name[0], name[1]
	}
	if _, _, err := audit.ParseBootID(boot); err != nil || !audit.ValidName(node) {
		return nil, fmt.Errorf("no record has the name %.80q %.80q", node, boot)
	}
	folder, done, err := recordsFolder(sources{from: f.from, fleet: f.fleet, region: f.region, node: node})
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := audit.Folder{FS: os.DirFS(folder)}.Prove(node, boot, seq, keys)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s/%s: %w", node, boot, audit.ErrNoRecord)
	}
	return p, err
}

// sources say where records are read.
type sources struct{ from, fleet, region, node string }

// recordsFolder returns a folder of batches: an export or a ledger as it is; of a
// fleet the ledger of a region or, without regions, an export of the journals that
// done takes away again.
func recordsFolder(s sources) (dir string, done func(), err error) {
	none := func() {}
	switch {
	case len(given(s.from, s.fleet)) != 1:
		return "", none, errors.New("which records? give --from, the folder of an export or of a ledger, or --dir, that of a fleet")
	case s.region != "" && s.fleet == "":
		return "", none, errors.New("--region goes with --dir")
	case s.from != "":
		return s.from, none, exportFolder(s.from)
	}
	l := assembly.Layout{Dir: s.fleet}
	if dir, err = assembly.Ledger(l, s.region); err != nil || dir != "" {
		return dir, none, err
	}
	parent, err := os.MkdirTemp("", "holdfast-journal-")
	if err != nil {
		return "", none, err
	}
	done = func() { _ = os.RemoveAll(parent) }
	dir = filepath.Join(parent, "export")
	if s.node == "" {
		err = assembly.ExportJournals(l, dir)
	} else {
		err = assembly.Export(l, dir, "", s.node)
	}
	if err != nil {
		done()
	}
	return dir, done, err
}

// A proven is a record with what is proven of it, in the JSON of `ledger prove`.
type proven struct {
	Node    string   `json:"node"`
	Boot    string   `json:"boot"`
	Seq     uint64   `json:"seq"`
	Leaf    string   `json:"leaf"`
	Size    uint64   `json:"size"`  // of the tree
	AsOf    string   `json:"as_of"` // when the node signed that, by its clock
	Regions []string `json:"regions"`
	Record  *shown   `json:"record"`
	// Against is what an answer says that the record does not; absent when it says
	// the same, or no answer was given.
	Against []string `json:"against,omitempty"`

	record *audit.Record
}

// openProof verifies a proof with the key of its node.
func openProof(p *audit.Proof, keys *audit.Keys) (*proven, error) {
	head, err := audit.PeekCheckpoint(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	key := keys.Node(head.Tenant, head.Node)
	if key == nil {
		return nil, fmt.Errorf("no public key for %s", audit.NodeKeyName(head.Tenant, head.Node))
	}
	r, c, err := p.Verify(key)
	if err != nil {
		return nil, err
	}
	_, regions, err := audit.OpenCosigned(p.Checkpoint, key, keys.Regions(head.Tenant)...)
	if err != nil {
		return nil, err
	}
	leaf := p.Entry.Hash()
	v := &proven{
		Node: c.Node, Boot: c.Boot, Seq: r.Seq, Leaf: hex.EncodeToString(leaf[:]), Size: c.Size,
		AsOf: stamp(c.Time), Regions: append([]string{}, regions...), Record: show(c.Node, c.Boot, r, leaf[:]), record: r,
	}
	if r.Decision != nil && r.Decision.Request != nil && json.Valid(r.Decision.Request.Bytes) {
		v.Record.Request = r.Decision.Request.Bytes
	}
	return v, nil
}

// against lists what an answer states that the proven record does not.
func (v *proven) against(a *policy.Answer) (out []string) {
	differ := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			out = append(out, fmt.Sprintf("%s: the answer says %v, the record %v", what, want, got))
		}
	}
	differ("node", v.Node, a.Node)
	differ("boot", v.Boot, a.Boot)
	differ("seq", v.Seq, a.Seq)
	differ("leaf", v.Leaf, a.Leaf)
	d := v.record.Decision
	if d == nil {
		return append(out, "the record is not that of a decision but of kind "+v.record.Kind.String())
	}
	differ("verdict", d.Verdict, a.Verdict)
	differ("epoch", d.Epoch, a.Epoch)
	reasons := make([]policy.Reason, len(d.Reasons))
	for i, r := range d.Reasons {
		reasons[i] = policy.Reason{Code: r.Code, Text: r.Text}
	}
	if !slices.Equal(reasons, a.Reasons) {
		differ("reasons", asJSON(reasons), asJSON(a.Reasons))
	}
	if len(d.Obligations)+len(a.Obligations) > 0 {
		differ("obligations", asJSON(d.Obligations), asJSON(a.Obligations))
	}
	if d.Value != nil && !d.Value.Missing() {
		var value any
		if err := wire.UnmarshalLoose(d.Value.Bytes, &value); err != nil {
			return append(out, "value: "+err.Error())
		}
		differ("value", asJSON(value), asJSON(a.Value))
	} else if d.Value == nil && a.Value != nil {
		differ("value", "none", asJSON(a.Value))
	}
	return out
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func saveProof(path string, p *audit.Proof) error {
	doc, err := p.Encode()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	_, err = f.Write(doc)
	return errors.Join(err, f.Close())
}

func (v *proven) print(e *env) error {
	p := newPrinter(e.stdout)
	p.line("record %d of node %s, boot %s", v.Seq, v.Node, v.Boot)
	v.Record.print(p)
	p.line("leaf %s", v.Leaf)
	p.line("%s in the tree of %d records that the node signed at %s", p.green("proven:"), v.Size, v.AsOf)
	if len(v.Regions) > 0 {
		p.line("counter-signed by %s", strings.Join(v.Regions, ", "))
	} else {
		p.line("no region counter-signed this tree")
	}
	for _, what := range v.Against {
		p.line("%s %s", p.red("!"), what)
	}
	return p.err
}

// stamp writes an instant in nanoseconds since 1970.
func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
