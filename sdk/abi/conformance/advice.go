package conformance

import (
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// advice says what the author of a guest can do, by the beginning of the case's
// name and a word of what came; the first that matches counts. sdk/abi/README.md
// is the page that it speaks of.
var advice = []struct{ begins, word, text string }{
	{"contract", "speaks no known contract", "export holdfast_abi_v1, holdfast_alloc and holdfast_decide by exactly these names; a linker keeps what --export names"},
	{"contract", "its type is", "declare it as sdk/abi/README.md does; i stands for i32 and I for i64, parameters before the colon: pointers and lengths are i32, the answer of decide is one i64"},
	{"contract", "is missing", "export it; a linker drops what no export names, and \"memory\" must be exported, not imported"},
	{"contract", "does not offer it", "link without libc, or define the function yourself; what the host offers is in sdk/abi/README.md, \"Imports\""},
	{"contract", "", "build it smaller or simpler: sdk/abi/README.md, \"What is refused\""},
	{"initialise", "no host", "give CheckGuest a host"},
	{"initialise", string(abi.TrapFuel), "do less in _initialize and holdfast_init, or take the class language-runtime"},
	{"initialise", "", "holdfast_init answers 0 when it is ready; it gets {\"params\", \"data\"} as CBOR, so check a guest that needs some as a folder with holdfast.yaml"},
	{"determinism", "", "the answer must depend on the input alone: no uninitialised memory, no address of memory as a value, no order of a hash map"},
	{"isolation", "", "the answer must depend on the input alone, not on what an earlier call left in memory; report it, for the host restores memory and globals"},
	{"malformed", string(abi.TrapDepth), "skip nested items by counting what is left instead of by calling yourself, or stop at 40 levels"},
	{"malformed", string(abi.TrapMemory), "compare every length with the bytes that are left before you move on by it; it may be 2^64-1"},
	{"malformed", string(abi.TrapFuel), "stop at the end of the input: a list of 2^32 items in five bytes is no list"},
	{"malformed", string(abi.TrapUnreachable), "answer 0 or a denial instead of a panic or an assertion: a trap costs the instance"},
	{"request/long", string(abi.TrapInput), "holdfast_alloc must give up to 524288 bytes"},
	{"request", string(abi.TrapInput), "holdfast_alloc answered 0, or an address with less room behind it than was asked for"},
	{"", string(abi.TrapRefused), "decide answered 0; it must answer ptr << 32 | len of a decision, each unsigned"},
	{"", "out of bounds", "decide must answer ptr << 32 | len, both within the memory: shift the pointer as an unsigned 64-bit number, and do not swap the two"},
	{"", "bytes of extraneous data", "len is longer than the map at ptr, or this is no CBOR: the answer is one CBOR map, no text and no JSON"},
	{"", "unexpected EOF", "len is shorter than the map at ptr, or this is no CBOR: the answer is one CBOR map, no text and no JSON"},
	{"", "too long", "answer at most 65536 bytes"},
	{"", "unknown field", "a decision has only verdict, reasons, obligations and value; a reason code and text, an obligation type, id and properties"},
	{"", "verdict", "the verdict is one of allow, transform, throttle, require_approval and deny, as a text"},
	{"", "obligation", "an obligation has a type, and transform has at least one obligation"},
	{"", string(abi.TrapOutput), "the answer is one CBOR map with a member verdict, no text and no JSON: sdk/abi/README.md, \"The answer\""},
	{"", "module output", "the answer is one CBOR map with a member verdict, no text and no JSON: sdk/abi/README.md, \"The answer\""},
	{"", "messages of", "log less: what is beyond the bound is dropped"},
	{"", string(abi.TrapFuel), "the input is within its bounds and must be answered within 20 million units: read only what the policy uses"},
	{"", string(abi.TrapDepth), "a request nests at most 32 deep: use fewer calls for a level, or count instead of calling"},
	{"", string(abi.TrapMemory), "an address outside of the memory: is the stack large enough (-z stack-size), and the buffer of holdfast_alloc as long as was asked for"},
	{"", "", "a trap ends the decision with the point's fail mode: answer a denial instead"},
}

func adviceOn(name, missing string) string {
	for _, a := range advice {
		if strings.HasPrefix(name, a.begins) && strings.Contains(missing, a.word) {
			return a.text
		}
	}
	return ""
}
