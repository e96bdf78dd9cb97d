// Command record asks OPA's own server every request of transcript.json and
// writes down what it answers. It is a module of its own, because the server
// brings what the product does not need. From this folder:
//
//	go run . ..
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

type exchange struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Set     bool              `json:"set,omitempty"` // the result is a set, in no order
	Status  int               `json:"status"`
	Type    string            `json:"type,omitempty"`
	Answer  string            `json:"answer"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	url, stop, err := serve(filepath.Join(dir, "policy"))
	if err != nil {
		return err
	}
	defer stop()
	file := filepath.Join(dir, "transcript.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all []exchange
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for i := range all {
		if err := ask(url, &all[i]); err != nil {
			return err
		}
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}

func serve(policy string) (url string, stop func(), err error) {
	ctx := context.Background()
	loaded, err := loader.NewFileLoader().All([]string{policy})
	if err != nil {
		return "", nil, err
	}
	store := inmem.NewFromObject(loaded.Documents)
	err = storage.Txn(ctx, store, storage.WriteParams, func(txn storage.Transaction) error {
		for name, m := range loaded.Modules {
			if err := store.UpsertPolicy(ctx, txn, name, m.Raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	manager, err := plugins.New([]byte("{}"), "record", store)
	if err == nil {
		err = manager.Start(ctx)
	}
	if err != nil {
		return "", nil, err
	}
	s, err := server.New().WithStore(store).WithManager(manager).Init(ctx)
	if err != nil {
		return "", nil, err
	}
	h := httptest.NewServer(s.Handler)
	return h.URL, h.Close, nil
}

func ask(url string, x *exchange) error {
	r, err := http.NewRequest(x.Method, url+x.URL, strings.NewReader(x.Body))
	if err != nil {
		return err
	}
	for k, v := range x.Headers {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	x.Status, x.Type, x.Answer = resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
	return err
}
