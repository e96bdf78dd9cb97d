package engine

import "time"

// HostFunctionNames returns the imports that the host has functions for.
func HostFunctionNames() map[string]bool {
	names := map[string]bool{}
	for name := range hostFunctions() {
		names[name] = true
	}
	return names
}

// WithLimits gives workers other limits than those of the class.
func WithLimits(c Config, cpu, wall time.Duration, memory int64) Config {
	c.limits = &compileLimits{CPU: cpu, Wall: wall, Memory: memory}
	return c
}
