package wasm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// path walks a body as a machine would, taking every conditional branch by
// chance, and counts the instructions that it meets.
type path struct {
	random *rand.Rand
	code   []instruction // with labels of their own
	ends   map[int]int   // index of a block, loop or if to that of its end
	elses  map[int]int   // index of an if to that of its else
	steps  int
	owed   uint64 // charged since the last check
	worst  uint64 // of owed, where no check was
}

// pass takes the charges at a place.
func (p *path) pass(charges []charge) (units uint64) {
	for _, c := range charges {
		units += c.units + nearLoad*c.loads
		if p.owed += c.most(); c.check {
			p.owed = 0
		}
		p.worst = max(p.worst, p.owed)
	}
	return units
}

func newPath(body []byte, random *rand.Rand) *path {
	p := &path{random: random, ends: map[int]int{}, elses: map[int]int{}}
	r := &reader{data: body, end: len(body)}
	var open []int
	for r.more() {
		var in instruction
		r.next(&in)
		at := len(p.code)
		p.code = append(p.code, in)
		switch in.op {
		case opBlock, opLoop, opIf:
			open = append(open, at)
		case opElse:
			p.elses[open[len(open)-1]] = at
		case opEnd:
			if len(open) > 0 {
				p.ends[open[len(open)-1]] = at
				open = open[:len(open)-1]
			}
		}
	}
	return p
}

// walk returns the cost of the instructions met, with 1 for every loop turn and
// the entry, and the sum of the charges passed. It gives up on endless loops.
func (p *path) walk(charges []charge) (met, charged uint64, ended bool) {
	at := map[int][]charge{}
	for _, c := range charges {
		at[c.at] = append(at[c.at], c)
	}
	var open []int
	met, charged = 1, p.pass(at[0])
	for pc := 0; p.steps < 2_000; p.steps++ {
		in := p.code[pc]
		met += cost(in.op)
		next, label := pc+1, -1
		switch in.op {
		case opBlock, opLoop:
			open = append(open, pc)
		case opIf:
			open = append(open, pc)
			if p.random.IntN(2) == 0 {
				if e, ok := p.elses[pc]; ok {
					next = e + 1
				} else {
					next, open = p.ends[pc]+1, open[:len(open)-1]
				}
			}
		case opElse: // the end of the other arm
			next, open = p.ends[open[len(open)-1]]+1, open[:len(open)-1]
		case opEnd:
			if len(open) == 0 {
				return met, charged, true
			}
			open = open[:len(open)-1]
		case opBr:
			label = int(in.index)
		case opBrIf:
			if p.random.IntN(2) == 0 {
				label = int(in.index)
			}
		case opBrTable:
			label = int(in.labels[p.random.IntN(len(in.labels))])
		case opReturn:
			label = len(open)
		}
		if label == len(open) {
			return met, charged, true
		}
		if label >= 0 {
			target := open[len(open)-1-label]
			if p.code[target].op == opLoop {
				open, next = open[:len(open)-label], target+1
			} else {
				open, next = open[:len(open)-1-label], p.ends[target]+1
			}
		}
		if p.code[next-1].op == opLoop {
			met++
		}
		charged += p.pass(at[p.code[next-1].end])
		pc = next
	}
	return 0, 0, false
}

// randomBody writes a well-formed body; its operands are of no interest.
func randomBody(random *rand.Rand, depth int) []byte {
	var code []byte
	for range random.IntN(5) {
		switch kind := random.IntN(10); {
		case kind < 3:
			code = append(code, opI32Eqz)
		case kind == 3:
			code = append(code, opBrIf, byte(random.IntN(depth+1)))
		case kind == 4 && random.IntN(3) == 0:
			code = append(code, opBr, byte(random.IntN(depth+1)))
		case kind == 5 && random.IntN(3) == 0:
			code = append(code, opBrTable, 1, byte(random.IntN(depth+1)), byte(random.IntN(depth+1)))
		case kind == 6 && random.IntN(4) == 0:
			code = append(code, opReturn)
		case kind == 7 && random.IntN(2) == 0:
			code = append(code, bytes.Repeat([]byte{opRefFunc, 0}, random.IntN(60))...)
		case kind == 8 && random.IntN(2) == 0:
			code = append(code, bytes.Repeat([]byte{opI32Load, 0, 0}, random.IntN(60))...)
		case depth < 5:
			op := []byte{opBlock, opLoop, opIf}[random.IntN(3)]
			code = append(code, op, blockEmpty)
			code = append(code, randomBody(random, depth+1)...)
			if op == opIf && random.IntN(2) == 0 {
				code = append(append(code, opElse), randomBody(random, depth+1)...)
			}
			code = append(code, opEnd)
		}
	}
	return code
}

// TestChargesAreWhatIsExecuted compares the merged charges with a count of every
// instruction on random paths through random bodies.
func TestChargesAreWhatIsExecuted(t *testing.T) {
	const seed = 11
	random := rand.New(rand.NewPCG(seed, 0))
	walked := 0
	for n := range 6_000 {
		code := append(randomBody(random, 0), opEnd)
		plan := fuelPlan{module: &Module{}}
		if err := plan.make(code, 0); err != nil {
			t.Fatal(err)
		}
		for _, c := range plan.charges {
			if c.most() > fuelSlack+24 {
				t.Fatalf("seed %d, body %d: a charge of %+v", seed, n, c)
			}
		}
		for range 5 {
			path := newPath(code, random)
			met, charged, ended := path.walk(plan.charges)
			if path.worst > fuelSlack {
				t.Fatalf("seed %d, body %d: % x: %d units unchecked", seed, n, code, path.worst)
			}
			if !ended {
				continue
			}
			walked++
			if met != charged {
				t.Fatalf("seed %d, body %d: % x: %d units met, %d charged by %+v", seed, n, code, met, charged, plan.charges)
			}
		}
	}
	if walked < 15_000 {
		t.Errorf("only %d paths came to an end", walked)
	}
}

// TestStretches shows where bodies are charged: offset:units, with ! for a check.
func TestStretches(t *testing.T) {
	for _, c := range []struct {
		name string
		body []byte
		want string
	}{
		{"straight", []byte{opI32Eqz, opI32Eqz, opEnd}, "0:3!"},
		{"block without branches", []byte{opI32Eqz, opBlock, blockEmpty, opI32Eqz, opEnd, opI32Eqz, opEnd}, "0:4!"},
		{"if merges behind it", []byte{opIf, blockEmpty, opI32Eqz, opEnd, opI32Eqz, opEnd}, "0:3! 2:1"},
		{"if and else", []byte{opIf, blockEmpty, opI32Eqz, opElse, opI32Eqz, opI32Eqz, opEnd, opI32Eqz, opEnd}, "0:3! 2:1 4:2"},
		{"skipped part of a block", []byte{opBlock, blockEmpty, opBrIf, 0, opI32Eqz, opEnd, opI32Eqz, opEnd}, "0:3! 4:1"},
		{"loop", []byte{opLoop, blockEmpty, opI32Eqz, opBrIf, 0, opEnd, opI32Eqz, opEnd}, "0:2! 2:3! 5:0"},
		{"way out of a loop", []byte{opBlock, blockEmpty, opLoop, blockEmpty, opBrIf, 1, opI32Eqz, opBr, 0, opEnd, opEnd, opI32Eqz, opEnd}, "0:2! 4:2! 6:2"},
		{"dead code is free", []byte{opBlock, blockEmpty, opBr, 0, opI32Eqz, opEnd, opEnd}, "0:2!"},
		{"long stretch", append(bytes.Repeat([]byte{opRefFunc, 0}, 250), opEnd), "0:1009! 84:1008! 168:1008! 252:1008! 336:1008! 420:960"},
		{"checked when a path owes too much", append(append([]byte{opBlock, blockEmpty, opBrIf, 0}, bytes.Repeat([]byte{opRefFunc, 0}, 25)...),
			append(append([]byte{opEnd, opIf, blockEmpty}, bytes.Repeat([]byte{opRefFunc, 0}, 25)...), opEnd, opEnd)...), "0:3! 4:600 57:600!"},
		{"bulk", []byte{opI32Eqz, prefixMisc, 11, 0, opEnd}, "0:10! 1:bulk!"},
	} {
		plan := fuelPlan{module: &Module{}}
		if err := plan.make(c.body, 0); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, charge := range plan.charges {
			text := fmt.Sprintf("%d:%d", charge.at, charge.units)
			if charge.bulk != 0 {
				text = fmt.Sprintf("%d:bulk", charge.at)
			}
			if charge.check {
				text += "!"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}
