// Residency keeps data of a class in the regions that its rule allows, and
// routes requests elsewhere to one of them.
package main

import (
	"errors"
	"slices"
	"strings"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Configure: configure, Decide: decide}) }

func main() {}

// Set once, by configure, before the first decision.
var (
	allowed      map[string][]string    // the regions of a class
	routes       map[string]guest.Value // where to go in a region
	defaultClass []string
)

const everywhere = "*"

func configure(params, _ guest.Value) error {
	class := params.Get("default_class")
	defaultClass = []string{class.CopyText()}
	allowed, routes = map[string][]string{}, map[string]guest.Value{}
	ok := class.Kind() == guest.String && params.Get("allowed").Kind() == guest.Map && params.Get("routes").Kind() == guest.Map
	for name, list := range params.Get("allowed").Members() {
		regions, isTexts := list.CopyTexts()
		allowed[strings.Clone(name)] = regions
		ok = ok && isTexts
	}
	for region, route := range params.Get("routes").Members() {
		routes[strings.Clone(region)] = route.Copy()
		ok = ok && route.Kind() == guest.Map
	}
	if !ok {
		return errors.New("want default_class as a text, allowed as a map of lists of texts, routes as a map of maps")
	}
	return nil
}

func decide(r guest.Request) guest.Decision {
	classes, ok := classesOf(r.Context().Get("data_classes"))
	if !ok {
		return guest.Denied("class_invalid", "the data classes are not a list of names")
	}
	for _, class := range classes {
		if _, ok := allowed[class]; !ok {
			return guest.Denied("class_unknown", "no rule for class "+class)
		}
	}
	region := r.Resource().Property("region")
	if region.Kind() != guest.String {
		return guest.Denied("region_unknown", "the resource does not say where it is")
	}
	forbidding, ok := firstThatForbids(classes, region.Text())
	if !ok {
		return guest.Decision{Verdict: guest.Allow, Reasons: []guest.Reason{{Code: "in_region", Text: region.Text() + " is allowed for " + strings.Join(classes, ", ")}}}
	}
	to, ok := destination(classes, r.Subject().Property("region"))
	if !ok {
		return guest.Denied("no_region", "no region with a route is allowed for "+strings.Join(classes, ", "))
	}
	return guest.Decision{
		Verdict:     guest.Transform,
		Reasons:     []guest.Reason{{Code: "rerouted", Text: region.Text() + " is not allowed for " + forbidding + ", " + to + " is"}},
		Obligations: []guest.Obligation{{ID: "residency", Type: "route", Properties: map[string]any{"region": to, "target": routes[to]}}},
	}
}

// classesOf returns the request's classes of data; texts of the request are
// valid as long as the call, which is enough.
func classesOf(v guest.Value) ([]string, bool) {
	if !v.Exists() {
		return defaultClass, true
	}
	classes := make([]string, 0, 8)
	for _, item := range v.Items() {
		if item.Kind() != guest.String {
			return nil, false
		}
		classes = append(classes, item.Text())
	}
	return classes, len(classes) > 0
}

// firstThatForbids returns the first class that does not allow the region.
func firstThatForbids(classes []string, region string) (string, bool) {
	for _, class := range classes {
		if list := allowed[class]; !slices.Contains(list, region) && !slices.Contains(list, everywhere) {
			return class, true
		}
	}
	return "", false
}

// destination is the subject's home where that will do, else the first region of
// the first class that will.
func destination(classes []string, home guest.Value) (string, bool) {
	if home.Kind() == guest.String && mayGo(classes, home.Text()) {
		return home.Text(), true
	}
	for _, region := range allowed[classes[0]] {
		if region != everywhere && mayGo(classes, region) {
			return region, true
		}
	}
	return "", false
}

func mayGo(classes []string, region string) bool {
	_, routed := routes[region]
	_, forbidden := firstThatForbids(classes, region)
	return routed && !forbidden
}
