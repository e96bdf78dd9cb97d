package wasm

import "bytes"

// Custom returns the content of the module's first custom section of that name,
// nil when there is none or the sections cannot be told apart. Its content is
// the module author's word, no more.
func Custom(module []byte, name string) []byte {
	if !bytes.HasPrefix(module, header) {
		return nil
	}
	r := &reader{data: module, pos: len(header), end: len(module)}
	for r.more() {
		id := r.byte("section")
		body := r.section("section", r.u32("section size"))
		if id == sectionCustom && body.name("custom section", uint32(len(body.data))) == name && body.err == nil {
			return body.data[body.pos:body.end]
		}
	}
	return nil
}
