//go:build race

package guests_test

// manyCalls are fewer under the race detector, which makes each some 50 times slower.
const manyCalls = 20_000
