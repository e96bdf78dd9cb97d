package demo

import (
	"bytes"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// That the policies agree with Want is shown where compiler and engine meet:
// cmd/holdfast, TestDemoCalls.
func TestCalls(t *testing.T) {
	calls, err := Calls(7)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Calls(7)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Calls(8)
	if err != nil {
		t.Fatal(err)
	}
	ids, tampered, moved := map[string]bool{}, map[string]int{}, 0
	honest := 0
	for i, c := range calls {
		if ids[c.ID] {
			t.Errorf("%s twice", c.ID)
		}
		ids[c.ID] = true
		if again[i].ID != c.ID || !bytes.Equal(again[i].Body, c.Body) {
			t.Fatalf("call %d differs with the same seed", i)
		}
		if i < len(other) && other[i].ID != c.ID {
			moved++
		}
		if _, err := policy.ParseRequest(c.Point, c.Body); err != nil {
			t.Errorf("%s: %v", c.ID, err)
		}
		if c.Want == policy.Allow {
			honest++
		}
		if (c.Want == policy.Allow) != (c.Code == "") {
			t.Errorf("%s: %s with code %q", c.ID, c.Want, c.Code)
		}
		tampered[c.Tampering]++
	}
	if honest < 900 || moved < len(calls)/2 {
		t.Errorf("%d honest calls, %d moved by another seed", honest, moved)
	}
	for _, want := range tamperings() {
		if tampered[want.name] == 0 {
			t.Errorf("no call with %s", want.name)
		}
	}
}
