// Package serve is a node's own front door over HTTP:
//
//	POST /v1/decide/{point}   a request as JSON in, an answer as JSON out
//	POST /v1/results          what became of a decision, as JSON; the name of its record out
//	GET  /v1/status           what is in force, as JSON
//	GET  /livez               200 while the process runs
//	GET  /readyz              200 once a verified release is in force, else 503
//
// A decision of whatever verdict is 200. A 4xx is no decision: it has a body
// {"error": {code, message, line, column, offset, pointer}} and no record.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A Decider answers requests. Decide returns an error that wraps
// policy.ErrUnknownPoint when there is no such point; it has no other error
// that is the asker's fault.
type Decider interface {
	Decide(context.Context, *policy.Request) (policy.Answer, error)
	// Report records what became of a decision. The error wraps
	// policy.ErrUnknownRecord when there is no such decision; every other one
	// means that nothing could be recorded.
	Report(context.Context, *policy.Result) (policy.Reported, error)
	// Ready returns why the node cannot decide yet, or nil.
	Ready() error
	// Status says what is in force.
	Status() policy.Status
}

// Bounds of a connection. They keep slow or silent clients from holding one.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
)

// A Door is another way in, such as that of another protocol.
type Door struct {
	Path    string // what it answers for, with all that lies below
	Handler http.Handler
}

// NewServer returns an HTTP server with bounded reads that answers from d, and
// for the paths of the other doors from those.
func NewServer(d Decider, doors ...Door) *http.Server {
	return &http.Server{
		Handler:           Handler(d, doors...),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
	}
}

// Handler returns the front door, and the others beside it.
func Handler(d Decider, doors ...Door) http.Handler {
	mux := http.NewServeMux()
	for _, door := range doors {
		mux.Handle(door.Path, door.Handler)
		mux.Handle(door.Path+"/", door.Handler)
	}
	mux.HandleFunc("POST /v1/decide/{point}", func(w http.ResponseWriter, r *http.Request) { decide(w, r, d) })
	mux.HandleFunc("POST /v1/results", func(w http.ResponseWriter, r *http.Request) { report(w, r, d) })
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Status()) // the client may have gone
	})
	return fromHere(http.NewCrossOriginProtection().Handler(mux))
}

// fromHere refuses requests that a web page sent: those of another origin are
// refused by the handler inside, and here those that reached a loopback address
// under a name that is not this machine's (DNS rebinding).
func fromHere(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if ok && local.IP.IsLoopback() && !isLoopback(r.Host) {
			(&fail{status: http.StatusMisdirectedRequest, Code: "wrong_host",
				Message: fmt.Sprintf("Host %.80q is not this machine's; ask by address or as localhost", r.Host)}).write(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

func decide(w http.ResponseWriter, r *http.Request, d Decider) {
	body, fault := readBody(w, r)
	if fault != nil {
		fault.write(w)
		return
	}
	req, err := policy.ParseRequest(r.PathValue("point"), body)
	if err != nil {
		malformed(err).write(w)
		return
	}
	answer, err := d.Decide(r.Context(), req)
	if _, ok := errors.AsType[*policy.SyntaxError](err); ok {
		malformed(err).write(w)
		return
	}
	if err != nil {
		status := http.StatusInternalServerError
		code := "internal_error"
		if errors.Is(err, policy.ErrUnknownPoint) {
			status, code = http.StatusNotFound, "unknown_point"
		}
		(&fail{status: status, Code: code, Message: err.Error()}).write(w)
		return
	}
	out, err := answer.MarshalJSON()
	if err != nil {
		(&fail{status: http.StatusInternalServerError, Code: "internal_error", Message: err.Error()}).write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Server-Timing", serverTiming(answer.Timing))
	_, _ = w.Write(append(out, '\n')) // the record is written; a client that has gone cannot be told
}

func report(w http.ResponseWriter, r *http.Request, d Decider) {
	body, fault := readBody(w, r)
	if fault != nil {
		fault.write(w)
		return
	}
	res, err := policy.ParseResult(body)
	if err != nil {
		malformed(err).write(w)
		return
	}
	reported, err := d.Report(r.Context(), res)
	switch {
	case errors.Is(err, policy.ErrUnknownRecord):
		(&fail{status: http.StatusNotFound, Code: "unknown_record", Message: err.Error()}).write(w)
		return
	case err != nil:
		(&fail{status: http.StatusServiceUnavailable, Code: "log_failure", Message: err.Error()}).write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reported) // the record is written; a client that has gone cannot be told
}

// serverTiming writes milliseconds, as the W3C's Server Timing has them.
func serverTiming(t policy.Timing) string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("decide;dur=%.3f, record;dur=%.3f", ms(t.Decide), ms(t.Record))
}

// readBody reads a JSON body of at most policy.MaxRequestBytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *fail) {
	if ct := r.Header.Get("Content-Type"); !isJSON(ct) {
		return nil, &fail{status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type",
			Message: fmt.Sprintf("Content-Type %.80q; send application/json", ct)}
	}
	tooLarge := &fail{status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Message: fmt.Sprintf("the body is longer than %d bytes", policy.MaxRequestBytes), Offset: policy.MaxRequestBytes}
	if r.ContentLength > policy.MaxRequestBytes {
		return nil, tooLarge
	}
	reader := http.MaxBytesReader(w, r.Body, policy.MaxRequestBytes)
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge
	case err != nil:
		return nil, &fail{status: http.StatusBadRequest, Code: "unreadable_body", Message: err.Error()}
	}
	return body, nil
}

// isJSON reports whether a body of that Content-Type is taken for JSON: one that
// says so, one that says nothing, and what `curl -d` says of everything. Pages of
// other origins are refused before, whatever they say.
func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return contentType == "" || err == nil && (kind == "application/json" || kind == "application/x-www-form-urlencoded")
}

// fail is the body of a 4xx or 5xx.
type fail struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Offset  int64  `json:"offset,omitempty"`
	Pointer string `json:"pointer,omitempty"`
}

func malformed(err error) *fail {
	f := &fail{status: http.StatusBadRequest, Code: "malformed_request", Message: err.Error()}
	var se *policy.SyntaxError
	if errors.As(err, &se) {
		f.Line, f.Column, f.Offset, f.Pointer = se.Line, se.Col, se.Offset, se.Pointer
	}
	return f
}

func (f *fail) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(map[string]*fail{"error": f}) // the client may have gone
}
