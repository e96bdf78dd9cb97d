// Package deploy_test holds what is deployed against the daemons: the example
// configurations name every key, and alerts ask only for metrics that exist.
package deploy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// rules is a Prometheus rule file.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		} `yaml:"rules"`
	} `yaml:"groups"`
}

var (
	metric = regexp.MustCompile(`holdfast_[a-z0-9_]+`)
	label  = regexp.MustCompile(`([a-z]+)(?:=~|!=|=)"([^"]*)"`)
)

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	raw, err := os.ReadFile("prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file rules
	d := yaml.NewDecoder(strings.NewReader(string(raw)))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	exported := metrics(t)
	asked := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			names := metric.FindAllString(r.Expr, -1)
			if r.Alert == "" || len(names) == 0 || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: %+v", g.Name, r)
			}
			for _, n := range names {
				asked++
				labels, ok := exported[n]
				if !ok {
					t.Errorf("%s asks for %s, which nobody exports", r.Alert, n)
				}
				for _, l := range label.FindAllStringSubmatch(r.Expr, -1) {
					if !slices.Contains(labels, l[1]) {
						t.Errorf("%s asks for the label %s of %s, which has %v", r.Alert, l[1], n, labels)
					}
				}
			}
		}
	}
	if asked == 0 {
		t.Error("no rule at all")
	}
}

// metrics are what the daemons export, with the labels of each, as their source
// describes them.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	described := regexp.MustCompile(`describe\(prometheus\.\w+, "([a-z0-9_]+)", "[^"]*"((?:, "[a-z]+")*)\)`)
	out := map[string][]string{}
	for _, file := range []string{"metrics.go", "edgemetrics.go"} {
		for _, m := range described.FindAllStringSubmatch(source(t, file), -1) {
			out["holdfast_"+m[1]] = regexp.MustCompile(`[a-z]+`).FindAllString(m[2], -1)
		}
	}
	if len(out) < 30 {
		t.Fatalf("%d metrics", len(out))
	}
	return out
}

// keys are the keys of a configuration, as the functions that read it list them.
func keys(t *testing.T, config string) []string {
	t.Helper()
	var out []string
	functions := regexp.MustCompile(`(?ms)^func .*?^}`).FindAllString(source(t, "config.go")+source(t, "edgeconfig.go")+source(t, "hubconfig.go")+source(t, "witness.go"), -1)
	for _, f := range functions {
		if !strings.Contains(f, "(c *"+config+")") && !strings.Contains(f, "func Read"+config) && (config != "HubConfig" || !strings.Contains(f, "func tlsFiles")) {
			continue
		}
		for _, m := range regexp.MustCompile(`"([a-z_]+)":\s`).FindAllStringSubmatch(f, -1) {
			out = append(out, m[1])
		}
	}
	if len(out) < 9 {
		t.Fatalf("%s: keys %v", config, out)
	}
	return out
}

func source(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../internal/assembly/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A named key ends with a colon, commented out or not.
var named = regexp.MustCompile(`(?m)([a-z_]+):(?:\s|$)`)

func TestExamplesNameEveryKey(t *testing.T) {
	for file, keys := range map[string][]string{"edge.yaml": keys(t, "EdgeConfig"), "hub.yaml": keys(t, "HubConfig"), "witness.yaml": keys(t, "WitnessConfig")} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var there []string
		for _, m := range named.FindAllStringSubmatch(string(raw), -1) {
			there = append(there, m[1])
		}
		for _, k := range keys {
			if !slices.Contains(there, k) {
				t.Errorf("%s does not name %s", file, k)
			}
		}
		var doc map[string]any
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
