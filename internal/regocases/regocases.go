// Package regocases holds no code: its test runs the conformance cases of Open
// Policy Agent, as they lie in its module, through compiler/rego and
// runtime/engine, on the way that a package takes.
package regocases
