package auth

import "slices"

// Any stands for every name in a place of a permission's subject.
const Any = "*"

// A Permission is one subject that a user may publish to or subscribe to, and
// why it must.
type Permission struct {
	Subject, Reason string
}

// Permissions is all that a user may do: what is not listed is refused.
type Permissions struct {
	Publish, Subscribe []Permission
	// Connections are the ways in which the user may connect.
	Connections []string
	// Subscriptions bounds how many subscriptions the user has at a time.
	Subscriptions int64
}

// The ways to connect.
const (
	byClient    = "STANDARD"
	byWebsocket = "WEBSOCKET"
	byLeaf      = "LEAFNODE"
	inProcess   = "IN_PROCESS"
)

// Kinds of users, and the second part of their inboxes' names: two users never
// share an inbox.
const (
	kindEdge     = "edge"
	kindHub      = "hub"
	kindOperator = "operator"
	kindReader   = "reader"
	kindWorkload = "workload"
)

// inbox is where the answers to a user's questions go.
func inbox(kind, name string) string { return "_INBOX." + kind + "." + literal(name) }

func prefix(tenant, region string) string { return ours(tenant) + "." + region + "." }

// ours begins every subject of a tenant.
func ours(tenant string) string { return "hf." + literal(tenant) }

// literal returns a name, and nothing for what is none: Issue refuses the
// subject then, in which a wildcard would stand for everybody.
func literal(name string) string {
	if checkName("name", name) != nil {
		return ""
	}
	return name
}

// EdgeInbox begins the subjects to which a node's answers may come.
func EdgeInbox(node string) string { return inbox(kindEdge, node) }

// WorkloadInbox begins the subjects to which the answers of a workload's questions
// may come: the prefix of inboxes that its client must be given.
func WorkloadInbox(user string) string { return inbox(kindWorkload, user) }

// ReaderInbox begins the subjects to which a reader's answers may come.
func ReaderInbox(user string) string { return inbox(kindReader, user) }

// OperatorInbox begins the subjects to which an operator's answers may come.
func OperatorInbox(user string) string { return inbox(kindOperator, user) }

// stored is where a region announces what it stored on a subject.
func stored(tenant, subject string) string {
	return ours(tenant) + ".stored." + Any + "." + prefix(tenant, Any) + subject
}

// Edge is what a node's leaf connection, or the node itself as a client, may do.
//
// It may ask the regions' gates, which answer into its own inbox only, and
// nothing of JetStream: whoever may send to a server that answers by itself can
// make it answer to a subject that he may not send to.
func Edge(tenant, node string) Permissions {
	return Permissions{
		Publish: []Permission{
			{prefix(tenant, Any) + "up." + Any + "." + literal(node) + ".>", "asks any gate of any region, in its own name: to store its records and attestations, to read policies and its receipts"},
			{ours(tenant) + ".live." + Any + "." + literal(node) + ".>", "its own live decisions"},
		},
		Subscribe: []Permission{
			{inbox(kindEdge, node) + ".>", "answers to its own questions"},
			{prefix(tenant, Any) + "hb", "heartbeats of every region"},
			{prefix(tenant, Any) + "kill", "kills and lifts, the fast way"},
			{stored(tenant, "pol.root."+Any), "trust roots as they are stored"},
			{stored(tenant, "pol.rel."+Any), "releases as they are stored"},
			{stored(tenant, "pol.order.>"), "rollout orders as they are stored"},
			{stored(tenant, "pol.kill."+Any), "kills as they are stored"},
			{stored(tenant, "pol.lift."+Any), "lifts as they are stored"},
			{stored(tenant, "pol.enrol."+literal(node)+"."+Any), "its own enrolments as they are stored"},
			{stored(tenant, "rcpt."+literal(node)+"."+Any), "receipts of its own records as they are stored"},
		},
		Connections:   []string{byClient, byLeaf},
		Subscriptions: 512,
	}
}

// Hub is what a hub server's own connection may do: it answers the edges, keeps
// the tenant's streams and copies between regions.
func Hub(tenant, server string) Permissions {
	return Permissions{
		Publish: []Permission{
			{ours(tenant) + ".>", "signed objects, records of edges, heartbeats, alarms; copies into other regions"},
			{"$JS.API.>", "the streams of a region without a domain"},
			{"$JS." + Any + ".API.>", "the streams of every region"},
			{"_INBOX." + kindEdge + ".>", "answers to edges"},
			{"_INBOX." + kindReader + ".>", "answers to readers"},
			{"_INBOX." + kindOperator + ".>", "answers to operators"},
			{"_INBOX." + kindHub + ".>", "answers to other hub servers"},
		},
		Subscribe: []Permission{
			{ours(tenant) + ".>", "questions to the gate, heartbeats and announcements"},
			{inbox(kindHub, server) + ".>", "answers to its own questions"},
		},
		Connections: []string{byClient, inProcess},
	}
}

// Operator is what a person who runs the tenant's fleet may do.
func Operator(tenant, user string) Permissions {
	return Permissions{
		Publish: []Permission{
			{prefix(tenant, Any) + "pol.>", "publishes signed objects, which nodes verify"},
			{prefix(tenant, Any) + "blob.>", "publishes packages, which releases name by digest"},
			{prefix(tenant, Any) + "kill", "kills, the fast way"},
			{prefix(tenant, Any) + "view." + Any + "." + literal(user) + ".>", "asks the gate"},
			{"$JS.API.STREAM.INFO." + Any, "looks at a region's streams, without a domain"},
			{"$JS." + Any + ".API.STREAM.INFO." + Any, "looks at a region's streams"},
			{"$JS.API.DIRECT.GET." + Any, "reads the tenant's streams, without a domain"},
			{"$JS." + Any + ".API.DIRECT.GET." + Any, "reads the tenant's streams"},
		},
		Subscribe: []Permission{
			{ours(tenant) + ".>", "everything of the tenant"},
			{inbox(kindOperator, user) + ".>", "answers to its own questions"},
		},
		Connections: []string{byClient, byWebsocket},
	}
}

// Reader is what somebody who only looks on may do: live decisions, the state of
// the fleet.
func Reader(tenant, user string) Permissions {
	return Permissions{
		Publish: []Permission{
			{prefix(tenant, Any) + "view." + Any + "." + literal(user) + ".>", "asks the gate for the tenant's signed objects and attestations"},
		},
		Subscribe: []Permission{
			{inbox(kindReader, user) + ".>", "answers to its own questions"},
			{ours(tenant) + ".live.>", "live decisions"},
			{prefix(tenant, Any) + "hb", "heartbeats"},
			{prefix(tenant, Any) + "kill", "kills"},
			{prefix(tenant, Any) + "alarm.>", "alarms"},
			{stored(tenant, "pol.>"), "signed objects as they are stored"},
			{stored(tenant, "att."+Any), "attestations as they are stored"},
			{stored(tenant, "act.>"), "activations as they are stored"},
		},
		Connections:   []string{byClient, byWebsocket},
		Subscriptions: 256,
	}
}

// Link is what the connection between two regions may carry, either way.
func Link(tenant string) Permissions {
	both := []Permission{
		{ours(tenant) + ".>", "signed objects, questions of edges, heartbeats, live decisions"},
		{"$JS." + Any + ".API.>", "each region's hubs read and copy the streams of the other"},
		{"_INBOX.>", "answers across the link"},
	}
	return Permissions{Publish: both, Subscribe: both, Connections: []string{byLeaf}}
}

// Workload is what a program beside an edge may do on the edge's own server:
// ask, and listen to that node's live decisions. Its answers come below
// WorkloadInbox, so that workloads do not read one another's.
func Workload(tenant, user string) Permissions {
	return Permissions{
		Publish: []Permission{
			{ours(tenant) + ".ask.>", "asks the node for decisions"},
		},
		Subscribe: []Permission{
			{ours(tenant) + ".live.>", "live decisions of this node: no others come here"},
			{inbox(kindWorkload, user) + ".>", "answers to its own questions"},
		},
		Connections:   []string{byClient},
		Subscriptions: 256,
	}
}

func subjects(list []Permission) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Subject)
	}
	slices.Sort(out)
	return out
}

// PublishSubjects are the subjects to publish to, sorted.
func (p Permissions) PublishSubjects() []string { return subjects(p.Publish) }

// SubscribeSubjects are the subjects to subscribe to, sorted.
func (p Permissions) SubscribeSubjects() []string { return subjects(p.Subscribe) }
