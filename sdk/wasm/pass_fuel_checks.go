package wasm

// checkFrame is an open block in the search for places of checks.
type checkFrame struct {
	op     opcode
	opened int // unchecked units when it was opened
	behind int // most unchecked units of a branch to its end
}

// checkPlacer follows the most units that any path has charged since it met a check.
type checkPlacer struct {
	plan   *fuelPlan
	frames []checkFrame
	next   int // charge
	owed   int // or unreached
}

// placeChecks marks further charges to be checked, so that no path charges more
// than fuelSlack between two checks. A function that was called may leave as much.
func (p *fuelPlan) placeChecks(body []byte) {
	c := checkPlacer{plan: p, frames: []checkFrame{{op: opBlock, behind: unreached}}}
	r := &reader{data: body, end: len(body)}
	var in instruction
	for len(c.frames) > 0 && r.next(&in) {
		c.charge(in.start)
		c.step(&in)
	}
}

// charge passes the charges at an offset.
func (c *checkPlacer) charge(at int) {
	for ; c.next < len(c.plan.charges) && c.plan.charges[c.next].at == at; c.next++ {
		charge := &c.plan.charges[c.next]
		c.owed += int(charge.most())
		charge.check = charge.check || c.owed > fuelSlack
		if charge.check {
			c.owed = 0
		}
	}
}

func (c *checkPlacer) step(in *instruction) {
	switch in.op {
	case opBlock, opLoop, opIf:
		c.frames = append(c.frames, checkFrame{op: in.op, opened: c.owed, behind: unreached})
	case opElse:
		frame := &c.frames[len(c.frames)-1]
		frame.behind = max(frame.behind, c.owed)
		frame.op, c.owed = opElse, frame.opened
	case opEnd:
		frame := c.frames[len(c.frames)-1]
		c.frames = c.frames[:len(c.frames)-1]
		c.owed = max(c.owed, frame.behind)
		if frame.op == opIf {
			c.owed = max(c.owed, frame.opened)
		}
	case opCall, opCallIndirect:
		if c.owed != unreached {
			c.owed = fuelSlack
		}
	case opBr, opBrIf:
		c.branch(in.index)
	case opBrTable:
		for _, label := range in.labels {
			c.branch(label)
		}
	}
	switch in.op {
	case opBr, opBrTable, opReturn, opUnreachable:
		c.owed = unreached
	}
}

// branch notes what a path to a label owes. A loop checks at its beginning.
func (c *checkPlacer) branch(label uint32) {
	frame := &c.frames[len(c.frames)-1-int(label)]
	if frame.op != opLoop {
		frame.behind = max(frame.behind, c.owed)
	}
}
