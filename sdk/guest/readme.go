package guest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// readme says what is in a project, how it is built and tested, and what must be
// installed for that.
func (l Language) readme(project map[string][]byte, name string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n\nA Holdfast policy in %s.\n\n", name, l.Title)
	out.WriteString("    holdfast test            # builds, and runs the golden vectors\n")
	out.WriteString("    holdfast test --watch    # again after every change\n")
	fmt.Fprintf(&out, "    holdfast build           # the package for a release: %s.hfp\n\n", name)
	if l.Install == "" {
		fmt.Fprintf(&out, "Nothing else needs to be installed: the holdfast command compiles %s itself.\n\n", l.Title)
	} else {
		fmt.Fprintf(&out, "Needs %s.\n\n", l.Install)
	}
	out.WriteString("| here | is |\n|---|---|\n")
	for _, f := range l.about(project) {
		fmt.Fprintf(&out, "| `%s` | %s |\n", f.name, f.is)
	}
	return out.Bytes()
}

type described struct{ name, is string }

// about describes the project's files, those of a folder together.
func (l Language) about(project map[string][]byte) []described {
	is := map[string]string{
		l.Source:             "the policy",
		"holdfast.yaml":      "its name, decision points, parameters and limits",
		"params.schema.json": "what a release may state as parameters",
		"data.json":          "data that the policy is given once, before its first decision",
		page:                 "how to write a policy with the SDK, on one page",
		"vectors.yaml":       "golden vectors: requests, and what the policy must answer; every node runs them before it uses the policy",
	}
	list := []described{{l.Source, is[l.Source]}}
	for _, name := range slices.Sorted(maps.Keys(project)) {
		folder, _, nested := strings.Cut(name, "/")
		if nested {
			name = folder + "/"
		}
		if slices.ContainsFunc(list, func(d described) bool { return d.name == name }) {
			continue
		}
		text, ok := is[name]
		switch {
		case ok:
		case name == "holdfast/":
			text = "the SDK for " + l.Title + "; its README has how to write a policy with it, on one page"
		case strings.HasPrefix(name, "holdfast"):
			text = "the SDK for " + l.Title
		default:
			text = "for " + l.Title + "'s own tools"
		}
		list = append(list, described{name, text})
	}
	return list
}
