package guest

// A Request is what a workload asks at a decision point. All of it is there as
// a Value; the methods name the members that every request has.
type Request struct{ Value }

// Point returns the decision point's name, such as "tool.pre_call".
func (r Request) Point() string { return r.Get("point").Text() }

// ID returns the asker's request id, "" when there is none.
func (r Request) ID() string { return r.Get("id").Text() }

// Subject returns who asks.
func (r Request) Subject() Entity { return Entity{r.Get("subject")} }

// Action returns the name of what is to be done.
func (r Request) Action() string { return r.Path("action", "name").Text() }

// Resource returns what it is to be done to.
func (r Request) Resource() Entity { return Entity{r.Get("resource")} }

// Context returns the request's context, Absent when there is none.
func (r Request) Context() Value { return r.Get("context") }

// Document returns the bare input document, Absent when there is none.
func (r Request) Document() Value { return r.Get("document") }

// Performs reports whether the asker said that it can perform obligations of
// the type.
func (r Request) Performs(obligation string) bool {
	for _, t := range r.Get("supported_obligations").Items() {
		if t.Text() == obligation {
			return true
		}
	}
	return false
}

// An Entity is a subject or a resource.
type Entity struct{ Value }

// Type returns the entity's type.
func (e Entity) Type() string { return e.Get("type").Text() }

// ID returns the entity's id.
func (e Entity) ID() string { return e.Get("id").Text() }

// Property returns one property, or Absent.
func (e Entity) Property(name string) Value { return e.Path("properties", name) }
