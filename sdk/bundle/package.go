package bundle

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The words of a manifest's class: which limits its module is admitted under.
const (
	ClassPolicy          = "policy"
	ClassData            = "data"
	ClassLanguageRuntime = "language-runtime"
)

// A Manifest describes a package.
type Manifest struct {
	Name        string `cbor:"name"`
	Version     string `cbor:"version,omitempty"`
	Description string `cbor:"description,omitempty"`
	ABI         string `cbor:"abi"` // an abi.Kind
	Class       string `cbor:"class"`
	Language    string `cbor:"language,omitempty"`
	Toolchain   string `cbor:"toolchain,omitempty"`
	// Module is the digest of the package's module; Encode sets it.
	Module wire.Digest `cbor:"module"`
	// Entrypoint is opa_1's default entry point, such as "tool_authz/decision".
	Entrypoint string   `cbor:"entrypoint,omitempty"`
	Points     []string `cbor:"points,omitempty"`   // where the author means it to be used
	Patterns   []string `cbor:"patterns,omitempty"` // RE2, for holdfast_v1's match
	// Params are the defaults of the parameters.
	Params map[string]any `cbor:"params,omitempty"`
	// Fuel bounds one call in units; 0 is the default of the ABI.
	Fuel uint64 `cbor:"fuel,omitempty"`
}

// A Vector is a golden test: a request and what the policy must answer.
type Vector struct {
	Name  string `cbor:"name"`
	Point string `cbor:"point"`
	// Request is JSON as policy.ParseRequest takes it.
	Request []byte `cbor:"request"`
	// Params overlay the manifest's for this vector.
	Params map[string]any `cbor:"params,omitempty"`
	Expect Expect         `cbor:"expect"`
}

// Expect is what a vector demands of the answer.
type Expect struct {
	Verdict policy.Verdict `cbor:"verdict"`
	// Codes are the reason codes, all of them and in order.
	Codes []string `cbor:"codes,omitempty"`
	// Obligations are the types of the obligations, all of them and in order.
	Obligations []string `cbor:"obligations,omitempty"`
	// Reasons are the reasons, all of them and in order; never beside Codes.
	Reasons []ExpectedReason `cbor:"reasons,omitempty"`
	// ExactObligations are the obligations, all of them and in order; never
	// beside Obligations.
	ExactObligations []ExpectedObligation `cbor:"exact_obligations,omitempty"`
	// Value is compared when HasValue is set.
	Value    any  `cbor:"value,omitempty"`
	HasValue bool `cbor:"has_value,omitempty"`
	// FuelMax is the most units that the call may use; 0 does not look at them.
	FuelMax uint64 `cbor:"fuel_max,omitempty"`
	// Trap is the trap code that must come instead of an answer; the other
	// members then say nothing.
	Trap string `cbor:"trap,omitempty"`
}

// An ExpectedReason is a reason that a vector demands.
type ExpectedReason struct {
	Code string  `cbor:"code"`
	Text *string `cbor:"text,omitzero"` // nil takes any text
}

// An ExpectedObligation is an obligation that a vector demands.
type ExpectedObligation struct {
	Type string  `cbor:"type"`
	ID   *string `cbor:"id,omitzero"` // nil takes any
	// Properties are compared whole: nil takes any, an empty map none.
	Properties map[string]any `cbor:"properties,omitzero"`
}

// A Package is one policy with all that it needs: a content-addressed file.
type Package struct {
	Manifest `cbor:"-"`
	Module   []byte   // Wasm, as its compiler wrote it
	Data     []byte   // a JSON document, for opa_1 an object; empty for none
	Vectors  []Vector // golden tests
	// ParamsSchema is a JSON Schema of the parameters; empty for none. That it is
	// one, and that the parameters satisfy it, is sdk/schema's to check.
	ParamsSchema []byte
}

// Encode returns the package as a file, and its digest: the SHA-256 of the
// uncompressed bytes, which are the same for the same package everywhere. It
// sets Manifest.Module. Errors wrap ErrPackage.
func (p *Package) Encode() (file []byte, digest wire.Digest, err error) {
	p.Manifest.Module = wire.Sum(p.Module)
	if err := p.check(); err != nil {
		return nil, digest, fmt.Errorf("%w: %.80q: %w", ErrPackage, p.Name, err)
	}
	raw, err := wire.Marshal(packageFile{
		Manifest: p.Manifest, Module: p.Module, Data: p.Data, Vectors: p.Vectors, ParamsSchema: p.ParamsSchema,
	})
	if err != nil {
		return nil, digest, fmt.Errorf("%w: %.80q: %w", ErrPackage, p.Name, err)
	}
	if len(raw) > MaxPackage {
		return nil, digest, fmt.Errorf("%w: %.80q: %d bytes; at most %d", ErrPackage, p.Name, len(raw), MaxPackage)
	}
	return wire.Compress(raw), wire.Sum(raw), nil
}

// OpenPackage reads a package file that is at most maxUncompressed bytes when
// decompressed, and returns it with its digest. Errors wrap ErrPackage.
func OpenPackage(file []byte, maxUncompressed int) (*Package, wire.Digest, error) {
	p, digest, err := openPackage(file, maxUncompressed)
	if err != nil {
		return nil, wire.Digest{}, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	return p, digest, nil
}

func openPackage(file []byte, maxUncompressed int) (*Package, wire.Digest, error) {
	if len(file) > MaxPackageFile {
		return nil, wire.Digest{}, fmt.Errorf("file of %d bytes; at most %d", len(file), MaxPackageFile)
	}
	raw, err := wire.Decompress(file, min(maxUncompressed, MaxPackage))
	if err != nil {
		return nil, wire.Digest{}, err
	}
	var f packageFile
	if err := wire.Unmarshal(raw, &f); err != nil {
		return nil, wire.Digest{}, err
	}
	p := &Package{Manifest: f.Manifest, Module: f.Module, Data: f.Data, Vectors: f.Vectors, ParamsSchema: f.ParamsSchema}
	return p, wire.Sum(raw), p.check()
}

// packageFile is the CBOR map of a package.
type packageFile struct {
	Manifest     Manifest `cbor:"manifest"`
	Module       []byte   `cbor:"module"`
	Data         []byte   `cbor:"data,omitempty"`
	Vectors      []Vector `cbor:"vectors,omitempty"`
	ParamsSchema []byte   `cbor:"params_schema,omitempty"`
}

func (p *Package) check() error {
	if len(p.Module) == 0 {
		return errors.New("no module")
	}
	if sum := wire.Sum(p.Module); sum != p.Manifest.Module {
		return fmt.Errorf("module %s, but the manifest says %s", sum, p.Manifest.Module)
	}
	if err := p.Manifest.check(); err != nil {
		return err
	}
	if err := p.checkData(); err != nil {
		return err
	}
	if len(p.ParamsSchema) > MaxParamsSchema {
		return fmt.Errorf("a schema of %d bytes; at most %d", len(p.ParamsSchema), MaxParamsSchema)
	}
	if len(p.Vectors) > MaxVectors {
		return fmt.Errorf("%d vectors; at most %d", len(p.Vectors), MaxVectors)
	}
	seen := map[string]bool{}
	for i := range p.Vectors {
		v := &p.Vectors[i]
		if seen[v.Name] {
			return fmt.Errorf("vector %.80q twice", v.Name)
		}
		seen[v.Name] = true
		if err := v.check(); err != nil {
			return fmt.Errorf("vector %d %.80q: %w", i+1, v.Name, err)
		}
	}
	return nil
}

func (m *Manifest) check() error {
	for _, s := range []string{m.Name, m.Version, m.Description, m.Language, m.Toolchain, m.Entrypoint} {
		if len(s) > MaxText {
			return fmt.Errorf("a text of %d bytes; at most %d", len(s), MaxText)
		}
	}
	switch {
	case m.Name == "":
		return errors.New("no name")
	case m.ABI != string(abi.HoldfastV1) && m.ABI != string(abi.OPA1):
		return fmt.Errorf("unknown abi %.80q", m.ABI)
	case m.Class != ClassPolicy && m.Class != ClassData && m.Class != ClassLanguageRuntime:
		return fmt.Errorf("unknown class %.80q", m.Class)
	case m.Fuel > abi.MaxFuel:
		return fmt.Errorf("fuel of %d units; at most %d", m.Fuel, abi.MaxFuel)
	case len(m.Patterns) > MaxPatterns:
		return fmt.Errorf("%d patterns; at most %d", len(m.Patterns), MaxPatterns)
	case len(m.Points) > MaxPoints:
		return fmt.Errorf("%d points; at most %d", len(m.Points), MaxPoints)
	}
	for _, p := range m.Points {
		if err := CheckPoint(p); err != nil {
			return err
		}
	}
	for i, p := range m.Patterns {
		if len(p) > MaxPattern {
			return fmt.Errorf("pattern %d of %d bytes; at most %d", i, len(p), MaxPattern)
		}
		if _, err := regexp.Compile(p); err != nil {
			return fmt.Errorf("pattern %d: %w", i, err)
		}
	}
	return checkParams(m.Params)
}

func (v *Vector) check() error {
	if v.Name == "" || len(v.Name) > MaxText {
		return fmt.Errorf("a name of %d bytes; 1 to %d", len(v.Name), MaxText)
	}
	if err := CheckPoint(v.Point); err != nil {
		return err
	}
	if _, err := policy.ParseRequest(v.Point, v.Request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if err := checkParams(v.Params); err != nil {
		return err
	}
	if err := v.Expect.check(); err != nil {
		return fmt.Errorf("expect: %w", err)
	}
	return nil
}

func (e *Expect) check() error {
	switch {
	case !e.Verdict.Valid():
		return fmt.Errorf("%s", e.Verdict)
	case len(e.Codes) > 0 && len(e.Reasons) > 0:
		return errors.New("both codes and reasons")
	case len(e.Obligations) > 0 && len(e.ExactObligations) > 0:
		return errors.New("obligations in both forms")
	}
	for _, r := range e.Reasons {
		if err := checkTexts(r.Code, r.Text); err != nil {
			return fmt.Errorf("reason %.80q: %w", r.Code, err)
		}
	}
	for _, o := range e.ExactObligations {
		err := checkTexts(o.Type, o.ID)
		if err == nil {
			err = checkValue(o.Properties, policy.MaxDepth)
		}
		if err != nil {
			return fmt.Errorf("obligation %.80q: %w", o.Type, err)
		}
	}
	return checkValue(e.Value, policy.MaxDepth)
}

// checkTexts wants one text, and another when it is there.
func checkTexts(text string, other *string) error {
	if text == "" {
		return errors.New("empty")
	}
	if err := checkValue(text, 1); err != nil || other == nil {
		return err
	}
	return checkValue(*other, 1)
}
