// Package regoindex holds no code: its tests compare the module with an index,
// OPA's own module and OPA's Go evaluator, and time all three.
package regoindex
