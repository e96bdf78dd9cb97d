// Package policyinput holds signed documents that must not be believed, one a
// file, and the index of why each is refused. internal/policyinput makes them.
package policyinput

import "embed"

//go:generate go test ../../internal/policyinput -run TestCorpus -update

// FS has corpus.txt, NAME.dsse for each case, and the packages that cases name.
//
//go:embed corpus.txt *.dsse packages
var FS embed.FS
