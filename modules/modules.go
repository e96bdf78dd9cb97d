// Package modules embeds the ready-made policies, so that one binary has them
// all: each folder as it is in the repository, with the committed module where
// a policy needs a toolchain.
package modules

import "embed"

// FS holds the folders, one for each policy. It is read-only.
//
//go:embed tool-authz/holdfast.yaml tool-authz/tool_authz.rego tool-authz/vectors.yaml tool-authz/README.md
//go:embed argument-guard/holdfast.yaml argument-guard/main.go argument-guard/rules.go argument-guard/check.go argument-guard/argument-guard.wasm argument-guard/vectors.yaml argument-guard/README.md
var FS embed.FS
