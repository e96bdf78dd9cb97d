package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// uncountedDepth is how deep calls may nest below a function that is not
// counted: the nesting of calls exceeds the counter by at most this.
const uncountedDepth = 8

// meterDepth adds the depth global and counts it down in every function, except
// those whose calls provably nest at most uncountedDepth deep.
func (m *Module) meterDepth() error {
	counted, err := m.countedFunctions()
	if err != nil {
		return err
	}
	depth := m.addGlobal(abi.ExportDepth, I32)
	for i := range m.functions {
		if !counted[i] {
			continue
		}
		f := &m.functions[i]
		result := m.blockType(m.types[f.typeIndex].results())
		if f.body, err = wrapBody(f.body, depth, result); err != nil {
			return err
		}
	}
	return nil
}

// countedFunctions tells which defined functions need the counter. A function
// needs none when all that it can call was found to need none in an earlier round.
func (m *Module) countedFunctions() ([]bool, error) {
	callees, err := m.callees()
	if err != nil {
		return nil, err
	}
	counted := make([]bool, len(m.functions))
	for i := range counted {
		counted[i] = len(callees[i]) > 0
	}
	for range uncountedDepth {
		var settled []int
		for i := range counted {
			if counted[i] && !anyCounted(callees[i], counted) {
				settled = append(settled, i)
			}
		}
		for _, i := range settled {
			counted[i] = false
		}
	}
	return counted, nil
}

// anyFunction stands among callees for those of an indirect call.
const anyFunction = ^uint32(0)

func anyCounted(callees []uint32, counted []bool) bool {
	for _, callee := range callees {
		if callee == anyFunction || counted[callee] {
			return true
		}
	}
	return false
}

// callees returns the defined functions that each defined function calls.
func (m *Module) callees() ([][]uint32, error) {
	imported := uint32(m.importedFunctions())
	callees := make([][]uint32, len(m.functions))
	var in instruction
	for i := range m.functions {
		body := m.functions[i].body
		r := &reader{data: body, end: len(body)}
		for r.more() && r.next(&in) {
			switch {
			case in.op == opCallIndirect:
				callees[i] = append(callees[i], anyFunction)
			case in.op == opCall && in.index >= imported:
				if int(in.index-imported) >= len(m.functions) {
					return nil, &Refusal{Offset: m.functions[i].offset, Item: item("call in function %d", i), Value: uint64(in.index), Reason: "no such function"}
				}
				callees[i] = append(callees[i], in.index-imported)
			}
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	return callees, nil
}

// blockType returns the encoded type of a block with these results, adding a
// function type where there are several.
func (m *Module) blockType(results string) []byte {
	if results == "" {
		return []byte{blockEmpty}
	}
	if len(results) == 1 {
		return []byte{byte(valueTypeOf(results[0]))}
	}
	want := FuncType(":" + results)
	for i, t := range m.types {
		if t == want {
			return appendS64(nil, int64(i))
		}
	}
	element := appendU32([]byte{0x60, 0}, uint32(len(results)))
	for i := range len(results) {
		element = append(element, byte(valueTypeOf(results[i])))
	}
	m.add(sectionType, element)
	m.types = append(m.types, want)
	return appendS64(nil, int64(len(m.types)-1))
}

func valueTypeOf(letter byte) ValueType {
	for t, l := range valueTypeLetters {
		if l == letter {
			return t
		}
	}
	return I32
}

// wrapBody puts a body into a block of its own, so that every way out of it
// passes the end of that block: the counter goes down before and up behind it.
// Labels keep their meaning, because the block takes the place of the function.
func wrapBody(body []byte, depth uint32, result []byte) ([]byte, error) {
	out := appendStep(make([]byte, 0, len(body)+48), depth, opI32Sub)
	out = appendU32(append(out, opGlobalGet), depth)
	out = append(out, opI32Const, 0, opI32LtS, opIf, blockEmpty, opUnreachable, opEnd)
	out = append(append(out, opBlock), result...)
	r := &reader{data: body, end: len(body)}
	var in instruction
	nested, done := uint32(0), 0
	for r.more() && r.next(&in) {
		switch in.op {
		case opBlock, opLoop, opIf:
			nested++
		case opEnd:
			nested--
		case opReturn:
			out = append(out, body[done:in.start]...)
			out = appendU32(append(out, opBr), nested)
			done = in.end
		}
	}
	out = append(out, body[done:]...)
	return append(appendStep(out, depth, opI32Add), opEnd), r.err
}

// appendStep adds 1 to the counter or subtracts it.
func appendStep(out []byte, depth uint32, op byte) []byte {
	out = appendU32(append(out, opGlobalGet), depth)
	out = append(out, opI32Const, 1, op)
	return appendU32(append(out, opGlobalSet), depth)
}
