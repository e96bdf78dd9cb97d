//go:build !race

package guests_test

// manyCalls are asked of the keeper whose calls are the fastest.
const manyCalls = 1_000_000
