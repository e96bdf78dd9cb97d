// Package opa is OPA's front door, the narrow one:
//
//	POST /v1/data/{path}   {"input": document} in, {"result": document} out
//	GET  /v1/data/{path}   the same with ?input=
//
// Answers are OPA's own: {} for what is undefined, its error objects and its
// status codes. Each of them, but for a 4xx, is a recorded decision whose name is
// in the header Holdfast-Record: NODE/BOOT/SEQ; leaf=HEX, or "none" when no
// record could be written.
package opa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// RecordHeader names the record of an answer.
const RecordHeader = "Holdfast-Record"

// A Decider answers for documents: the JSON at path for an input, nil for
// undefined; a nil input is undefined. Its errors are a *policy.SyntaxError, for
// an input that is no request, and a *policy.NoDocumentError: then the answer is
// there all the same.
type Decider interface {
	Data(ctx context.Context, path []string, input []byte) (policy.Answer, []byte, error)
}

// Handler serves /v1/data and what lies below.
func Handler(d Decider) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		input, fault := readInput(w, r)
		if fault == nil {
			fault = answer(w, r, d, input)
		}
		if fault != nil {
			fault.write(w)
		}
	})
}

// question is the body of a POST. A null input is a missing one, as for OPA.
type question struct {
	Input *json.RawMessage `json:"input"`
}

type response struct {
	Result  *any     `json:"result,omitempty"`
	Warning *warning `json:"warning,omitempty"`
}

type warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func answer(w http.ResponseWriter, r *http.Request, d Decider, input []byte) *fault {
	path, fault := pathOf(r)
	if fault != nil {
		return fault
	}
	a, doc, err := d.Data(r.Context(), path, input)
	var syntax *policy.SyntaxError
	var none *policy.NoDocumentError
	switch {
	case errors.As(err, &syntax):
		return malformed(r, errors.New(syntax.Reason))
	case errors.As(err, &none):
		name(w, a)
		return evaluation(none.Reason)
	case err != nil:
		return internal(err)
	}
	out := response{}
	if out.Result, err = plain(doc); err != nil {
		return internal(err)
	}
	name(w, a)
	if r.Method == http.MethodPost && input == nil {
		out.Warning = &warning{"api_usage_warning", "'input' key missing from the request"}
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	if isSet(r, "pretty") {
		enc.SetIndent("", "  ")
	}
	_ = enc.Encode(out) // the record is written; a client that has gone cannot be told
	return nil
}

// plain reads a document for an encoder that sorts its members, as OPA's does;
// number literals are kept.
func plain(doc []byte) (*any, error) {
	if doc == nil {
		return nil, nil
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	err := dec.Decode(&v)
	return &v, err
}

func name(w http.ResponseWriter, a policy.Answer) {
	record := "none"
	if a.Recorded {
		record = fmt.Sprintf("%s/%s/%d; leaf=%s", a.Node, a.Boot, a.Seq, a.Leaf)
	}
	w.Header().Set(RecordHeader, record)
}

// readInput returns nil for a missing input.
func readInput(w http.ResponseWriter, r *http.Request) ([]byte, *fault) {
	switch r.Method {
	case http.MethodGet:
		return queryInput(r)
	case http.MethodPost:
		return bodyInput(w, r)
	}
	return nil, &fault{status: http.StatusMethodNotAllowed}
}

func queryInput(r *http.Request) ([]byte, *fault) {
	// Here a GET is a decision and leaves a record, so that another site's page
	// may not send one.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		f := invalid("cross-origin request")
		f.status = http.StatusForbidden
		return nil, f
	}
	values := r.URL.Query()["input"]
	if len(values) == 0 {
		return nil, nil
	}
	input := []byte(values[len(values)-1])
	var first json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(input)).Decode(&first); err != nil {
		return nil, malformed(r, err)
	}
	if err := json.Unmarshal(input, &first); err != nil {
		return nil, malformed(r, fmt.Errorf("error: %w", err))
	}
	return input, nil
}

func bodyInput(w http.ResponseWriter, r *http.Request) ([]byte, *fault) {
	if strings.Contains(r.Header.Get("Content-Type"), "yaml") || r.Header.Get("Content-Encoding") != "" {
		return nil, invalid("the body must be JSON, not YAML and not compressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, policy.MaxRequestBytes))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		f := invalid("request body too large: it exceeds the limit of %d bytes", large.Limit)
		f.status = http.StatusRequestEntityTooLarge
		return nil, f
	}
	if err != nil {
		return nil, invalid("%v", err)
	}
	var q question
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&q); err != nil && !errors.Is(err, io.EOF) {
		return nil, malformed(r, err)
	}
	if q.Input == nil {
		return nil, nil
	}
	return *q.Input, nil
}

// pathOf returns the steps of the document's path; empty ones do not count.
func pathOf(r *http.Request) (path []string, _ *fault) {
	if isSet(r, "strict-builtin-errors") {
		return nil, invalid("strict-builtin-errors is not supported: an error in a built-in is undefined")
	}
	_, rest, _ := strings.Cut(r.URL.EscapedPath(), "/v1/data")
	for step := range strings.SplitSeq(rest, "/") {
		if step == "" {
			continue
		}
		if plain, err := url.PathUnescape(step); err == nil {
			step = plain
		}
		if strings.Contains(step, `"`) {
			return nil, &fault{status: http.StatusInternalServerError, Code: "internal_error", Message: fmt.Sprintf("invalid_parameter: invalid path: invalid ref term '%s'", step)}
		}
		path = append(path, step)
	}
	return path, nil
}

// isSet reads a boolean parameter as OPA does: one without a value is true.
func isSet(r *http.Request, param string) bool {
	values, ok := r.URL.Query()[param]
	if !ok {
		return false
	}
	for _, v := range values {
		if strings.EqualFold(v, "true") {
			return true
		}
	}
	return len(values) == 1 && values[0] == ""
}

// fault is OPA's error object.
type fault struct {
	status  int
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Errors  []detail `json:"errors,omitempty"`
}

type detail struct {
	Code     string    `json:"code"`
	Message  string    `json:"message"`
	Location *location `json:"location,omitempty"`
}

type location struct {
	File string `json:"file"`
	Row  int    `json:"row"`
	Col  int    `json:"col"`
}

func invalid(format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, Code: "invalid_parameter", Message: fmt.Sprintf(format, args...)}
}

func malformed(r *http.Request, err error) *fault {
	if r.Method == http.MethodGet {
		return invalid("parameter contains malformed input document: %v", err)
	}
	return invalid("body contains malformed input document: %v", err)
}

func internal(err error) *fault {
	return &fault{status: http.StatusInternalServerError, Code: "internal_error", Message: err.Error()}
}

// evaluation reports an evaluation that ended; a module says FILE:ROW:COL: why.
func evaluation(reason string) *fault {
	f := internal(errors.New("error(s) occurred while evaluating query"))
	d := detail{Code: "eval_internal_error", Message: reason}
	if strings.HasSuffix(reason, " conflict") {
		d.Code = "eval_conflict_error"
	}
	if parts := strings.SplitN(reason, ":", 4); len(parts) == 4 {
		row, errRow := strconv.Atoi(parts[1])
		col, errCol := strconv.Atoi(parts[2])
		if errRow == nil && errCol == nil {
			d.Message, d.Location = strings.TrimSpace(parts[3]), &location{parts[0], row, col}
		}
	}
	f.Errors = []detail{d}
	return f
}

func (f *fault) write(w http.ResponseWriter) {
	if f.Code == "" { // OPA says no more than the status
		w.WriteHeader(f.status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(f) // the client may have gone
}
