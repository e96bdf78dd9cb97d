package codec

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Document returns the value in OPA's result set, or what lies in it at path, as
// the JSON that the module wrote: number literals are kept. It is nil when that
// is undefined. As in OPA, a step that is a number leads into a list and any
// other into an object. Errors wrap ErrOutput.
func Document(out []byte, path []string) (json.RawMessage, error) {
	var set []struct {
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(out, &set); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutput, err)
	}
	if len(set) > 1 {
		return nil, fmt.Errorf("%w: %d results, want at most one", ErrOutput, len(set))
	}
	if len(set) == 0 {
		return nil, nil
	}
	value := set[0].Result
	for _, step := range path {
		if value = member(value, step); value == nil {
			return nil, nil
		}
	}
	return value, nil
}

// member returns nil when value has no such member.
func member(value json.RawMessage, step string) json.RawMessage {
	if i, err := strconv.ParseInt(step, 10, 64); err == nil {
		var list []json.RawMessage
		if json.Unmarshal(value, &list) != nil || i < 0 || i >= int64(len(list)) {
			return nil
		}
		return list[i]
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(value, &object) != nil {
		return nil
	}
	return object[step]
}
