package vectors

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// compare says in a line each what differs from what the vector expects.
func (r *VectorResult) compare() []string {
	if r.err != nil || r.want.Trap != "" {
		return r.compareTrap()
	}
	var lines []string
	differs := func(what string, want, got any) {
		lines = append(lines, fmt.Sprintf("  %s: want %v, got %v", what, want, got))
	}
	if r.got.Verdict != r.want.Verdict {
		differs("verdict", r.want.Verdict, r.got.Verdict)
	}
	switch {
	case len(r.want.Reasons) > 0:
		if !slices.EqualFunc(r.want.Reasons, r.got.Reasons, isReason) {
			differs("reasons", text(expectedReasons(r.want, nil)), text(reasons(r.got.Reasons)))
		}
	default:
		if codes := codesOf(r.got); !slices.Equal(codes, r.want.Codes) {
			differs("reason codes", r.want.Codes, codes)
		}
	}
	switch {
	case len(r.want.ExactObligations) > 0:
		if !slices.EqualFunc(r.want.ExactObligations, r.got.Obligations, isObligation) {
			differs("obligations", text(expectedObligations(r.want, nil)), text(obligations(r.got.Obligations)))
		}
	default:
		if types := typesOf(r.got); !slices.Equal(types, r.want.Obligations) {
			differs("obligations", r.want.Obligations, types)
		}
	}
	if r.want.HasValue && !reflect.DeepEqual(r.got.Value, r.want.Value) {
		differs("value", text(r.want.Value), text(r.got.Value))
	}
	if r.tooMuchFuel() {
		differs("fuel", fmt.Sprintf("at most %d", r.want.FuelMax), r.Fuel)
	}
	return lines
}

func (r *VectorResult) tooMuchFuel() bool { return r.want.FuelMax > 0 && r.Fuel > r.want.FuelMax }

func (r *VectorResult) compareTrap() []string {
	switch {
	case r.err == nil:
		return []string{fmt.Sprintf("  trap: want %s, got the verdict %s", r.want.Trap, r.got.Verdict)}
	case trapCode(r.err) == r.want.Trap:
		return nil
	case r.want.Trap == "":
		return []string{fmt.Sprintf("  trap: want the verdict %s, got %v", r.want.Verdict, r.err)}
	}
	return []string{fmt.Sprintf("  trap: want %s, got %v", r.want.Trap, r.err)}
}

func trapCode(err error) string {
	var trap *abi.Trap
	if errors.As(err, &trap) {
		return string(trap.Code)
	}
	return string(abi.TrapHost)
}

func isReason(want bundle.ExpectedReason, got policy.Reason) bool {
	return want.Code == got.Code && (want.Text == nil || *want.Text == got.Text)
}

func isObligation(want bundle.ExpectedObligation, got policy.Obligation) bool {
	return want.Type == got.Type && (want.ID == nil || *want.ID == got.ID) &&
		(want.Properties == nil || len(want.Properties)+len(got.Properties) == 0 || reflect.DeepEqual(want.Properties, got.Properties))
}

func codesOf(d *policy.Decision) (codes []string) {
	for _, r := range d.Reasons {
		codes = append(codes, r.Code)
	}
	return codes
}

func typesOf(d *policy.Decision) (types []string) {
	for _, o := range d.Obligations {
		types = append(types, o.Type)
	}
	return types
}
