package bundle

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Merged returns the manifest's parameters overlaid by over, name by name; the
// values themselves are not merged. It is never nil and shares no map with m.
func (m *Manifest) Merged(over map[string]any) map[string]any {
	merged := map[string]any{}
	maps.Copy(merged, m.Params)
	maps.Copy(merged, over)
	return merged
}

// checkData returns an error unless the package's data can be given to its
// module: JSON, and for opa_1 an object that leaves data.params to the parameters.
func (p *Package) checkData() error {
	if len(p.Data) == 0 {
		return nil
	}
	v, err := policy.ParseValue(p.Data)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if p.ABI != string(abi.OPA1) {
		return nil
	}
	object, ok := v.(map[string]any)
	if !ok {
		return errors.New("data: opa_1 takes a JSON object")
	}
	if _, taken := object["params"]; taken && len(p.Params) > 0 {
		return errors.New(`data: the member "params" is where the parameters go`)
	}
	return nil
}

func checkParams(params map[string]any) error {
	if err := checkValue(params, policy.MaxDepth); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	return nil
}

// checkValue returns an error unless v is a policy value of at most depth levels.
func checkValue(v any, depth int) error {
	switch v := v.(type) {
	case nil, bool, int64:
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%v is not a number", v)
		}
	case string:
		if !utf8.ValidString(v) {
			return errors.New("text that is not UTF-8")
		}
	case []any:
		for _, e := range v {
			if err := checkInner(e, depth); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, e := range v {
			if !utf8.ValidString(name) {
				return errors.New("a name that is not UTF-8")
			}
			if err := checkInner(e, depth); err != nil {
				return fmt.Errorf("%.80q: %w", name, err)
			}
		}
	default:
		return fmt.Errorf("a %T is not a policy value", v)
	}
	return nil
}

func checkInner(v any, depth int) error {
	if depth == 1 {
		return fmt.Errorf("nested more than %d levels deep", policy.MaxDepth)
	}
	return checkValue(v, depth-1)
}
