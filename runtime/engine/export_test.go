package engine

// HostFunctionNames returns the imports that the host has functions for.
func HostFunctionNames() map[string]bool {
	names := map[string]bool{}
	for name := range hostFunctions() {
		names[name] = true
	}
	return names
}
