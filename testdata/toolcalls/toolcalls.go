// Package toolcalls embeds the tool calls of the demo; README.md beside it has
// their origin and licence.
package toolcalls

import _ "embed"

//go:embed toolcalls.jsonl
var jsonl string

// JSONL returns the tool calls, one JSON object a line.
func JSONL() string { return jsonl }
