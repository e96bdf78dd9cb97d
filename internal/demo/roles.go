package demo

import "strings"

// operatorTools are the beginnings of the names of tools that the demo's role
// "operator" is granted, and "assistant" is not: modules/tool-authz/holdfast.yaml.
func operatorTools() []string {
	return []string{"cmd_controller.", "ControlAppliance.", "releases_api.", "delete_"}
}

// roleFor returns the role that the demo's agent has for a tool.
func roleFor(tool string) string {
	for _, p := range operatorTools() {
		if strings.HasPrefix(tool, p) {
			return "operator"
		}
	}
	return "assistant"
}

// limitedAmounts are the arguments for which those parameters name a limit; no
// limit there is as high as excess.
func limitedAmounts() []string {
	return []string{
		"amount", "budget", "daily_budget", "deposit", "initial_cost", "invested_amount", "investment_amount", "principal",
		"purchase_amount", "total_deposits",
	}
}

const excess = 1_000_000
