package edge

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Data answers OPA's data API: the document at path for a bare input, nil for
// undefined. The answer is decided and recorded like every other, at the point
// that the path names. A nil input is undefined in the policies. Errors are a
// *policy.SyntaxError, which is no decision, or a
// *policy.NoDocumentError: then the answer is what the point's fail mode says.
func (n *Node) Data(_ context.Context, path []string, input []byte) (policy.Answer, []byte, error) {
	start := n.cfg.Now()
	l := n.live.Load()
	point := notReady
	if l.set != nil {
		if point = l.set.PointOf(path); point == nil {
			point = unknownPath
		}
	}
	req, err := dataRequest(point, path, input)
	if err != nil {
		return policy.Answer{}, nil, err
	}
	a := &asked{req: req, path: path, isData: true, start: start}
	var answer policy.Answer
	switch {
	case l.set == nil:
		a.outcome = decide.NotReady()
		answer = n.answer(l, point, a)
	default:
		answer = n.ask(l, point, a)
	}
	doc := a.doc
	switch {
	case a.stopped || a.failure != nil && !answer.Verdict.Permits():
		// Undefined may mean permission to who asks for denials; an error does not.
		return answer, nil, &policy.NoDocumentError{Reason: answer.Reasons[len(answer.Reasons)-1].Text}
	case doc.Failure != "":
		return answer, nil, &policy.NoDocumentError{Reason: doc.Failure}
	case !answer.Recorded && point.OnLogFailure != policy.FailAllowFlagged:
		return answer, nil, &policy.NoDocumentError{Reason: "the record of this decision could not be written"}
	case slices.ContainsFunc(answer.Reasons, func(r policy.Reason) bool { return r.Code == decide.CodeTooLarge }):
		return answer, nil, &policy.NoDocumentError{Reason: "the policies said more than a record can hold"}
	case doc.Permits && !answer.Verdict.Permits():
		return answer, nil, nil // nobody is given more than what is recorded
	}
	return answer, doc.JSON, nil
}

// unknownPath stands in for the point of a path that no package declares.
var unknownPath = &decide.Point{Durability: policy.Synced, Lease: bundle.MaxLease * time.Second}

// dataRequest is the request that stands in the record: the bare input, and the
// path as the resource.
func dataRequest(point *decide.Point, path []string, input []byte) (*policy.Request, error) {
	name := point.Name
	if name == "" {
		name = policy.PointCustom
	}
	resource, err := json.Marshal(policy.Entity{Type: "data", ID: strings.Join(path, "/")})
	if err != nil {
		return nil, err
	}
	body := slices.Concat([]byte(`{"bare":true,"resource":`), resource)
	if input != nil {
		body = slices.Concat(body, []byte(`,"document":`), input)
	}
	return policy.ParseRequest(name, append(body, '}'))
}
