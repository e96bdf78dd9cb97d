package edge

import (
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// recorded is a request as its record has it: json is nil when it may not be kept.
type recorded struct {
	*policy.Request
	json []byte
	red  *mask.Redaction // nil without masks
}

// toRecord masks a request by the masks of its point. While no release is in
// force nobody knows what would have to be masked: nothing of the request is kept.
func (n *Node) toRecord(l *live, p *decide.Point, req *policy.Request) (recorded, error) {
	rules := p.Masks
	switch p {
	case notReady:
		return recorded{Request: &policy.Request{}, red: mask.Blind()}, nil
	case unknownPath:
		rules = l.set.Masks
	}
	json, err := req.JSON()
	if rules == nil || err != nil {
		return recorded{Request: req, json: json}, err
	}
	red := rules.Apply(n.secret.masks, json)
	if !red.Masked() {
		return recorded{Request: req, json: json}, nil
	}
	return recorded{Request: requestOf(red.Request()), json: red.Request(), red: red}, nil
}

// requestOf reads what a record repeats of a masked request. Members that the
// masks took away, or put a text in the place of, may be missing.
func requestOf(json []byte) *policy.Request {
	req := &policy.Request{}
	doc, err := policy.ParseValue(json)
	if err != nil { // nothing of it is repeated
		return req
	}
	all, _ := doc.(map[string]any)
	m := stated(all)
	req.ID = m.text("id")
	req.Subject, req.Resource = m.masked("subject"), m.masked("resource")
	action := m.masked("action")
	if req.Action.Name = m.below("action").text("name"); req.Action.Name == "" {
		req.Action.Name = action.ID
	}
	req.Context = m.below("context")
	m.list("signals", maxSignals, func(s stated) {
		score, _ := s["score"].(float64)
		if whole, ok := s["score"].(int64); ok {
			score = float64(whole)
		}
		req.Signals = append(req.Signals, policy.Signal{Detector: s.text("detector"), Version: s.text("version"), Score: score})
	})
	return req
}

// masked reads an entity, of which a text may have taken the place.
func (m stated) masked(name string) policy.Entity {
	e := m.below(name)
	return policy.Entity{Type: e.text("type"), ID: m.text(name) + e.text("id"), Properties: e.below("properties")}
}
