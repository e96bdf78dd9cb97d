// Package conformance tells the author of a guest SDK, or of a host, what is
// missing from version 1 of the guest contract. CheckGuest runs a module on
// hosts that are trusted; CheckHost runs reference guests on a host. The cases
// are data; a report has one line for each.
package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// A Guest is a module with what it is loaded with.
type Guest struct {
	Name     string
	Wasm     []byte
	ABI      abi.Kind
	Class    wasm.Class
	Init     []byte   // as sdk/codec makes it; empty for none
	Patterns []string // RE2, for holdfast_v1.match
}

// A Host loads guests.
type Host interface {
	// Load admits and initialises a guest. The module is ready for calls when
	// there is no error, and is used until the check that loaded it returns. The
	// error of a guest that is not admitted wraps a *wasm.Refusal, that of one
	// that trapped an *abi.Trap.
	Load(context.Context, Guest) (abi.Module, error)
}

// A Result is the outcome of one case.
type Result struct {
	Case     string // short and stable, such as "request/minimal"
	Expected string // what the contract wants
	Missing  string // what came instead; "" when the case holds
	Advice   string // what the author can do about it; "" when the case holds
}

// Held reports whether the case holds.
func (r Result) Held() bool { return r.Missing == "" }

// A Report has the results in the order of the cases.
type Report []Result

// Missing returns the results of the cases that do not hold.
func (r Report) Missing() (missing Report) {
	for _, result := range r {
		if !result.Held() {
			missing = append(missing, result)
		}
	}
	return missing
}

// Err names every case that does not hold, what it expects and what came; nil
// when all hold.
func (r Report) Err() error {
	var errs []error
	for _, m := range r.Missing() {
		errs = append(errs, fmt.Errorf("%s: want %s; %s; %s", m.Case, m.Expected, m.Missing, m.Advice))
	}
	return errors.Join(errs...)
}

// add notes the outcome of a case; an empty text means that it holds.
func (r *Report) add(name, expected, missing string) {
	result := Result{Case: name, Expected: expected, Missing: missing}
	if missing != "" {
		result.Advice = adviceOn(name, missing)
	}
	*r = append(*r, result)
}

// trapOf returns the code of a call's error, and false when the error is no trap.
func trapOf(err error) (abi.TrapCode, bool) {
	trap, ok := errors.AsType[*abi.Trap](err)
	if !ok {
		return "", err == nil
	}
	return trap.Code, true
}
