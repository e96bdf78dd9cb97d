package schema

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Bounds of an error's text.
const (
	maxFaults = 10
	maxReason = 200 // bytes
)

// compileError says in one form what the library says in many.
func compileError(err error) error {
	var invalid *jsonschema.SchemaValidationError
	var found *jsonschema.ValidationError
	if errors.As(err, &invalid) && errors.As(invalid.Err, &found) {
		return faultsOf(found, ErrSchema)
	}
	var load *jsonschema.LoadURLError
	if errors.As(err, &load) {
		return schemaError("", "$ref", "%v", load.Err)
	}
	var re *jsonschema.InvalidRegexError
	if errors.As(err, &re) {
		return schemaError(pointerOf(re.URL), "pattern", "%v", re.Err)
	}
	text := strings.ReplaceAll(err.Error(), base, "")
	return schemaError("", "", "%s", short(text))
}

// faultsOf returns the innermost errors, sorted, each once.
func faultsOf(err *jsonschema.ValidationError, is error) error {
	printer := message.NewPrinter(language.English)
	seen := map[Fault]bool{}
	var faults []Fault
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, c := range e.Causes {
			walk(c)
		}
		if len(e.Causes) > 0 || len(faults) > 10_000 {
			return
		}
		f := Fault{Pointer: pointer(e.InstanceLocation), Keyword: keyword(e.ErrorKind), Reason: short(e.ErrorKind.LocalizedString(printer))}
		if ours, ok := e.ErrorKind.(*kind.Format); ok {
			f.Reason = short(ours.Err.Error())
		}
		if !seen[f] {
			faults = append(faults, f)
		}
		seen[f] = true
	}
	walk(err)
	slices.SortFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Keyword, b.Keyword), cmp.Compare(a.Reason, b.Reason))
	})
	shown := faults[:min(len(faults), maxFaults)]
	return &Error{is: is, Faults: shown, More: len(faults) - len(shown)}
}

// keyword is the keyword that failed; the library does not say it of all.
func keyword(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Format: // of the parameters it is the meter's, of the schema a pattern's
		var choice *choiceError
		if errors.As(k.Err, &choice) {
			return "enum"
		}
		return k.Want
	case *kind.FalseSchema:
		return "false"
	case *kind.Not:
		return "not"
	}
	if path := k.KeywordPath(); len(path) > 0 {
		return path[0]
	}
	return strings.ToLower(reflect.TypeOf(k).Elem().Name())
}

func pointer(path []string) string {
	var b strings.Builder
	for _, step := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	return b.String()
}

// pointerOf is the fragment of an address.
func pointerOf(location string) string {
	_, fragment, _ := strings.Cut(location, "#")
	if plain, err := url.PathUnescape(fragment); err == nil {
		return plain
	}
	return fragment
}

func short(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + fmt.Sprintf("... (%d bytes)", len(s))
}
