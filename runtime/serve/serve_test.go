package serve_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/serve"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// allows is a node that allows whatever it is asked.
type allows struct{ err error }

func (a allows) Decide(context.Context, *policy.Request) (policy.Answer, error) {
	return policy.Answer{
		Decision: policy.Decision{Verdict: policy.Allow}, Timing: policy.Timing{Decide: 1500 * time.Microsecond, Record: time.Millisecond},
	}, a.err
}

func (a allows) Report(_ context.Context, r *policy.Result) (policy.Reported, error) {
	return policy.Reported{Recorded: true, Node: "n", Boot: r.Boot, Seq: r.Seq + 1, Durability: policy.Synced}, a.err
}
func (a allows) Ready() error        { return a.err }
func (allows) Status() policy.Status { return policy.Status{Node: "n"} }

type fault struct {
	Error struct {
		Code, Message, Pointer string
		Line, Column           int
		Offset                 int64
	}
}

// send writes a raw request and returns the status and what was wrong.
func send(t *testing.T, server *httptest.Server, raw string) (int, fault) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, raw)
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var f fault
	_ = json.NewDecoder(resp.Body).Decode(&f) // an answer has no error
	return resp.StatusCode, f
}

func TestBodiesAreBounded(t *testing.T) {
	server := httptest.NewServer(serve.Handler(allows{}))
	defer server.Close()
	const head = "POST /v1/decide/custom HTTP/1.1\r\nHost: localhost\r\n"
	chunk := strings.Repeat(" ", policy.MaxRequestBytes/2)
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk), 3) + "0\r\n\r\n"
	for name, c := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"chunked, too long":  {chunked, 413, "request_too_large"},
		"claims a terabyte":  {head + "Content-Length: 1099511627776\r\n\r\n{}", 413, "request_too_large"},
		"shorter than said":  {head + "Content-Length: 60\r\n\r\n{\"document\":1}", 400, "unreadable_body"},
		"as long as it said": {head + "Content-Length: 14\r\n\r\n{\"document\":1}", 200, ""},
	} {
		if status, f := send(t, server, c.raw); status != c.status || f.Error.Code != c.code {
			t.Errorf("%s: %d %+v; want %d %s", name, status, f, c.status, c.code)
		}
	}
}

func TestPlaceOfAFault(t *testing.T) {
	server := httptest.NewServer(serve.Handler(allows{}))
	defer server.Close()
	body := "{\n \"context\": {\"a\": {\"b\": 1e999}}}"
	_, f := send(t, server, fmt.Sprintf("POST /v1/decide/custom HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	if e := f.Error; e.Line != 2 || e.Column == 0 || e.Offset == 0 || e.Pointer != "/context/a/b" {
		t.Errorf("%+v", e)
	}
}

func TestAnswerCarriesItsTiming(t *testing.T) {
	server := httptest.NewServer(serve.Handler(allows{}))
	defer server.Close()
	resp, err := http.Post(server.URL+"/v1/decide/custom", "application/json", strings.NewReader(`{"document":1}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Server-Timing"); got != "decide;dur=1.500, record;dur=1.000" {
		t.Errorf("%q", got)
	}
}

// An error of the node is its own fault, and not ready is said.
func TestNodeInTrouble(t *testing.T) {
	server := httptest.NewServer(serve.Handler(allows{errors.New("broken")}))
	defer server.Close()
	if status, f := send(t, server, "POST /v1/decide/custom HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"document\":1}"); status != 500 || f.Error.Code != "internal_error" {
		t.Errorf("%d %+v", status, f)
	}
	if status, _ := send(t, server, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 503 {
		t.Errorf("readyz: %d", status)
	}
}

// No client may hold a connection for as long as it likes.
func TestServerIsBounded(t *testing.T) {
	s := serve.NewServer(allows{})
	for name, d := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 || d > 5*time.Minute {
			t.Errorf("%s timeout: %v", name, d)
		}
	}
	if s.MaxHeaderBytes <= 0 || s.MaxHeaderBytes > 64<<10 {
		t.Errorf("headers of %d bytes", s.MaxHeaderBytes)
	}
}

func TestResults(t *testing.T) {
	const good = `{"boot":"b","seq":1}`
	for _, c := range []struct {
		node         allows
		body         string
		status       int
		code, answer string
	}{
		{allows{}, good, 200, "", `{"recorded":true,"durability":"synced","node":"n","boot":"b","seq":2,"leaf":""}`},
		{allows{}, `{"boot":"b"}`, 400, "malformed_request", ""},
		{allows{fmt.Errorf("%w: x", policy.ErrUnknownRecord)}, good, 404, "unknown_record", ""},
		{allows{errors.New("disk")}, good, 503, "log_failure", ""},
	} {
		rec := httptest.NewRecorder()
		serve.Handler(c.node).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/v1/results", strings.NewReader(c.body)))
		var f fault
		_ = json.Unmarshal(rec.Body.Bytes(), &f) // an answer has no error
		if rec.Code != c.status || f.Error.Code != c.code || c.answer != "" && strings.TrimSpace(rec.Body.String()) != c.answer {
			t.Errorf("%s: %d %s", c.body, rec.Code, rec.Body)
		}
	}
}
