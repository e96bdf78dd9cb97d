package main

import (
	"testing"
	"time"
)

// Fault drills over the whole product: real processes, files, signals. After each,
// every answer that was said to be recorded has its record in the ledgers of both
// regions, counter-signed, once, in order, with the leaf that the answer named;
// or the loss is named with its exact range.
//
// A clock that jumps is no drill: a process of its own cannot be given another
// clock without a library that stands between it and the kernel. Packages that
// read a clock take it as an argument and have their own tests.

// Nodes and hub servers are killed at random moments.
func TestRecordsOutliveKills(t *testing.T) {
	d := newDrill(t)
	d.whole("at first")
	for range rounds(3, 20) {
		d.sometime(300 * time.Millisecond)
		d.kill("one")
		d.restart("one")
	}
	d.whole("node killed again and again")
	for _, server := range []string{"eu-1", "us-1"} {
		for range rounds(1, 5) {
			d.sometime(300 * time.Millisecond)
			d.kill(server)
			d.goesOn("one", 20)
			d.startHubs(server)
		}
		d.whole(server + " killed")
	}
	for range rounds(1, 5) {
		d.sometime(300 * time.Millisecond)
		d.kill("eu-1", "two")
		d.restart("two")
		d.startHubs("eu-1")
	}
	d.whole("node and hub killed together")
}

// Regions are away, one after the other and both, and come back in either order.
func TestRecordsOutliveRegions(t *testing.T) {
	d := newDrill(t)
	for _, order := range [][]string{{"eu-1", "us-1"}, {"us-1", "eu-1"}} {
		d.sometime(200 * time.Millisecond)
		d.kill(order...)
		d.goesOn("one", 50)
		d.kill("one")
		d.restart("one") // while nobody hears it
		d.goesOn("one", 50)
		d.startHubs(order[0])
		d.goesOn("two", 50)
		d.startHubs(order[1])
		d.whole("both regions were away, " + order[0] + " came first")
	}
	for range rounds(2, 10) {
		for _, l := range d.second { // what is shipped arrives; that it did is not heard
			l.Mute()
		}
		d.sometime(time.Second)
		sever(d.second)
		d.goesOn("two", 20)
		heal(d.second)
	}
	d.whole("acknowledgements were lost")
	sever(d.between)
	sever(d.second[:1])
	d.goesOn("two", 50)
	d.kill("two")
	d.restart("two")
	heal(d.second)
	heal(d.between)
	d.whole("the regions did not hear one another")
}
