package bus_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

// A rawLeaf is a leaf node that obeys nobody: it speaks the protocol by hand,
// so that only the hub's own checks stand between it and the account.
type rawLeaf struct {
	t     *testing.T
	conn  net.Conn
	done  chan struct{} // closed when the hub has hung up
	pings int           // sent

	mu   sync.Mutex
	errs []string          // -ERR lines
	subs []string          // LS+ lines: interest that the hub shows
	msgs map[string]string // by subject
	pong int
}

// dialLeaf connects with a node's credentials.
func dialLeaf(t *testing.T, addr, ca, creds, name string) *rawLeaf {
	t.Helper()
	tcp, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	plain := bufio.NewReaderSize(tcp, 64<<10)
	line, err := plain.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Nonce string `json:"nonce"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(strings.TrimSpace(line), "INFO ")), &info); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(ca)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	conn := tls.Client(tcp, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13})
	token, sig := sign(t, creds, info.Nonce)
	hello, err := json.Marshal(map[string]any{
		"version": "2.15.2", "jwt": token, "sig": sig, "name": name, "server_id": name, "headers": true, "protocol": 1, "remote_account": "X",
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &rawLeaf{t: t, conn: conn, done: make(chan struct{}), pings: 1, msgs: map[string]string{}}
	l.send("CONNECT " + string(hello) + "\r\nPING\r\n")
	go l.read()
	t.Cleanup(func() { conn.Close(); <-l.done })
	return l
}

func sign(t *testing.T, creds, nonce string) (token, sig string) {
	t.Helper()
	file, err := os.ReadFile(creds)
	if err != nil {
		t.Fatal(err)
	}
	if token, err = nkeys.ParseDecoratedJWT(file); err != nil {
		t.Fatal(err)
	}
	key, err := nkeys.ParseDecoratedUserNKey(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Sign([]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return token, base64.RawURLEncoding.EncodeToString(raw)
}

func (l *rawLeaf) send(s string) {
	l.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(l.conn, s) // a hub that has hung up is what a test may wait for
}

func (l *rawLeaf) publish(subject, reply, data string) {
	if reply != "" {
		reply += " "
	}
	l.send(fmt.Sprintf("LMSG %s %s%d\r\n%s\r\n", subject, reply, len(data), data))
}

// publishHeader publishes with one header.
func (l *rawLeaf) publishHeader(subject, header, data string) {
	head := "NATS/1.0\r\n" + header + "\r\n\r\n"
	l.send(fmt.Sprintf("HMSG %s %d %d\r\n%s%s\r\n", subject, len(head), len(head)+len(data), head, data))
}

func (l *rawLeaf) subscribe(subject string) { l.send("LS+ " + subject + "\r\n") }

func (l *rawLeaf) read() {
	defer close(l.done)
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case line == "PING":
			l.send("PONG\r\n")
		case line == "PONG":
			l.mu.Lock()
			l.pong++
			l.mu.Unlock()
		case strings.HasPrefix(line, "LMSG ") || strings.HasPrefix(line, "HMSG "):
			n, _ := strconv.Atoi(f[len(f)-1])
			data := make([]byte, n+2)
			if _, err := io.ReadFull(r, data); err != nil {
				return
			}
			l.mu.Lock()
			l.msgs[f[1]] = string(data[:n])
			l.mu.Unlock()
		case strings.HasPrefix(line, "LS+ "):
			l.mu.Lock()
			l.subs = append(l.subs, f[1])
			l.mu.Unlock()
		case strings.HasPrefix(line, "-ERR"):
			l.mu.Lock()
			l.errs = append(l.errs, line)
			l.mu.Unlock()
		}
	}
}

// settled waits until the hub has worked on everything sent so far, and reports
// whether it has hung up.
func (l *rawLeaf) settled() (hungUp bool) {
	l.t.Helper()
	l.pings++
	l.send("PING\r\n")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		select {
		case <-l.done:
			return true
		case <-time.After(2 * time.Millisecond):
		}
		l.mu.Lock()
		ok := l.pong >= l.pings
		l.mu.Unlock()
		if ok {
			return false
		}
	}
	l.t.Fatal("the hub does not answer a ping")
	return false
}

func (l *rawLeaf) said(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.errs, func(e string) bool { return strings.Contains(e, what) })
}

func (l *rawLeaf) received() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for k, v := range l.msgs {
		out[k] = v
	}
	return out
}
