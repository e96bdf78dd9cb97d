package bus_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// evil marks everything that the hostile edge, e66, sends.
const evil = "evil e66"

// A scene is two regions with two tenants in full work, and witnesses.
type scene struct {
	*regiontest.World
	hubA, hubB jetstream.Region
	rival      jetstream.Region
	honest     *regiontest.Node
	creds      string // of e66

	mu   sync.Mutex
	seen []string // subjects on which a witness saw something evil
}

func newScene(t *testing.T) *scene {
	s := &scene{World: regiontest.StartWorld(t, 3, "acme", "rival")}
	s.hubA, s.hubB, s.rival = s.Region(s.A, 0, "acme"), s.Region(s.B, 0, "acme"), s.Region(s.A, 0, "rival")
	s.honest = s.Node("acme", "e1", s.A, s.B)
	s.creds = s.Creds(t, "acme", "e66", auth.Edge("acme", "e66"))
	ctx := t.Context()
	for _, err := range []error{
		s.hubA.PublishRelease(ctx, 1, []byte("release 1"), wire.Compress([]byte("package"))),
		s.hubA.PutEnrolment(ctx, "e1", 1, []byte("enrolment of e1")),
		s.rival.PublishRelease(ctx, 1, []byte("release of the rival")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	regiontest.Until(t, "the honest edge is heard", 10*time.Second, func() bool { return s.honest.Attest(ctx, true, 1, []byte("e1 attests")) == nil })
	if _, err := (jetstream.Sink{Region: s.edgeRegion()}).Publish(ctx, "e1", "b1", 0, []byte("records of e1")); err != nil {
		t.Fatal(err)
	}
	s.honest.Expect(t, 10*time.Second, "release 1", "enrolment of e1")
	regiontest.Until(t, "the copy in rb", 10*time.Second, func() bool { l, _ := s.hubB.Leader(ctx, 1); return l == "ra" })
	for _, c := range []*bus.Conn{s.hubA.Conn, s.hubB.Conn} {
		s.witness(t, c, "hf.acme.>")
	}
	s.witness(t, s.rival.Conn, "hf.rival.>")
	s.witness(t, s.honest.Conn, ">")
	return s
}

func (s *scene) edgeRegion() jetstream.Region {
	return jetstream.Region{Conn: s.honest.Conn, Tenant: "acme", Name: "ra"}
}

func (s *scene) witness(t *testing.T, c *bus.Conn, subject string) {
	stop, err := c.Subscribe(t.Context(), subject, func(m bus.Msg) {
		if strings.Contains(string(m.Data), evil) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen = append(s.seen, m.Subject)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// stored is everything that the streams of both tenants hold in both regions,
// and when each stream was made.
func (s *scene) stored(t *testing.T) map[string]string {
	t.Helper()
	ctx, out := t.Context(), map[string]string{}
	for _, r := range []jetstream.Region{s.hubA, s.hubB, s.rival} {
		for _, kind := range []string{"POL", "REC", "RCPT", "STATE"} {
			st := r.Conn.Stream(r.Name, kind+"_"+r.Tenant)
			created, err := st.Created(ctx)
			if err != nil {
				t.Fatal(err)
			}
			out[r.Name+" "+kind+"_"+r.Tenant] = created.String()
			msgs, err := st.Batch(ctx, 1, ">", 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range msgs {
				if strings.HasSuffix(m.Subject, ".lease") {
					continue
				}
				if strings.HasSuffix(m.Subject, ".att.e1") {
					m.Seq = 0 // its own attestations go on
				}
				out[m.Subject] = fmt.Sprint(m.Seq, " ", string(m.Data))
			}
		}
	}
	return out
}

// untouched fails the test unless all is as before and no witness saw anything.
func (s *scene) untouched(t *testing.T, before map[string]string) {
	t.Helper()
	after := s.stored(t)
	for _, subject := range slices.Sorted(maps.Keys(after)) {
		if after[subject] != before[subject] {
			t.Errorf("stored on %s: %q, was %q", subject, after[subject], before[subject])
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d subjects, were %d", len(after), len(before))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) > 0 {
		t.Errorf("witnesses saw something on %q", s.seen)
	}
}

// Subjects that an edge may not publish to.
func forbiddenPublish() []string {
	hex := wire.Sum([]byte("x")).Hex()
	out := []string{
		"hf.acme.ra.rec.e1.b1", "hf.acme.ra.rec.e66.b1", "hf.acme.ra.up.x.e1.rec.b1", "hf.acme.rb.up.any.e1.who", "hf.acme.ra.up.e1.e1.head.b1", "hf.acme.ra.up.e66.e1.att",
		"hf.acme.ra.att.e1", "hf.acme.ra.att.e66", "hf.acme.ra.act.e1.1", "hf.acme.ra.lease", "hf.acme.ra.rcpt.e1.b1",
		"hf.acme.live.json.e1.deny.tool", "hf.acme.ask.decide", "hf.acme.ra.hb", "hf.acme.rb.hb", "hf.acme.ra.kill", "hf.acme.ra.alarm.x",
		"hf.acme.ra.pol.rel.2", "hf.acme.ra.pol.order.1.1", "hf.acme.ra.pol.kill." + hex, "hf.acme.ra.pol.lift." + hex,
		"hf.acme.ra.pol.enrol.e66.1", "hf.acme.ra.pol.root.2", "hf.acme.ra.pol.account.1", "hf.acme.ra.blob." + hex + ".0",
		"hf.acme.stored.ra.hf.acme.ra.pol.rel.2", "hf.acme.ra.view.any.e66.who",
		"hf.rival.ra.up.any.e66.who", "hf.rival.ra.pol.rel.2", "hf.rival.live.json.e66.deny.x",
		"_INBOX.edge.e1.x", "_INBOX.hub.ra-1.x", "$JS.FC.POL_acme.x", "$JSC.R.x", "$NRG.V.x",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.ACCOUNT.X.CONNECT", "$SRV.PING",
	}
	for _, api := range []string{"$JS.API.", "$JS.ra.API.", "$JS.rb.API."} {
		for _, ask := range []string{
			"INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.X", "STREAM.UPDATE.POL_acme", "STREAM.INFO.POL_acme", "STREAM.DELETE.POL_acme",
			"STREAM.PURGE.REC_acme", "STREAM.MSG.GET.REC_acme", "STREAM.MSG.DELETE.STATE_acme", "STREAM.SNAPSHOT.REC_acme", "STREAM.RESTORE.X",
			"STREAM.LEADER.STEPDOWN.POL_acme", "STREAM.PEER.REMOVE.POL_acme", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.X",
			"CONSUMER.CREATE.REC_acme.c.hf.acme.ra.rec.e1.>", "CONSUMER.CREATE.POL_acme", "CONSUMER.CREATE.REC_acme", "CONSUMER.DURABLE.CREATE.REC_acme.c", "CONSUMER.NAMES.REC_acme",
			"CONSUMER.MSG.NEXT.REC_acme.c", "DIRECT.GET.REC_acme", "DIRECT.GET.STATE_acme", "DIRECT.GET.POL_acme",
			"DIRECT.GET.RCPT_acme.hf.acme.ra.rcpt.e1.b1", "DIRECT.GET.REC_acme.hf.acme.ra.rec.e1.b1", "DIRECT.GET.POL_rival",
		} {
			out = append(out, api+ask)
		}
	}
	return out
}

// Subjects that an edge may not subscribe to: none of them is one of its own.
func forbiddenSubscribe() []string {
	return []string{
		">", "*", "*.>", "hf.>", "hf.acme.>", "hf.*.ra.hb", "hf.acme.ra.>", "hf.acme.*.*", "hf.acme.ra.rec.>", "hf.acme.ra.rec.e1.b1", "hf.acme.ra.att.*", "hf.acme.ra.up.>", "hf.acme.ra.up.any.e1.who",
		"hf.acme.live.>", "hf.acme.live.json.e1.deny.x", "hf.acme.ask.>", "hf.acme.stored.>", "hf.acme.stored.ra.hf.acme.ra.pol.enrol.e1.*",
		"hf.acme.stored.ra.hf.acme.ra.rcpt.e1.*", "hf.acme.stored.ra.hf.acme.ra.att.*", "hf.acme.ra.pol.>", "hf.acme.ra.alarm.>",
		"hf.rival.>", "hf.rival.ra.hb", "_INBOX.>", "_INBOX.*.*.>", "_INBOX.edge.e1.>", "_INBOX.hub.>", "_R_.>", "$SYS.>", "$SYS.ACCOUNT.>", "$JS.>", "$JS.API.>", "$JS.ra.API.>", "$JSC.>", "$NRG.>", "$LDS.>", "$SRV.>", "$G.>",
	}
}

// traffic makes everything move that somebody could listen to.
func (s *scene) traffic(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, err := range []error{
		s.hubA.Heartbeat(ctx, []byte("hb")), s.rival.Heartbeat(ctx, []byte("hb of the rival")), s.hubB.Alarm("x", []byte("alarm")),
		s.honest.Attest(ctx, false, 0, []byte("e1 attests")),
		s.honest.Conn.Publish("hf.acme.live.json.e1.deny.x", []byte("live")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (jetstream.Sink{Region: s.edgeRegion()}).Publish(ctx, "e1", "b1", 0, []byte("again")); !errors.As(err, new(*bus.FenceError)) {
		t.Fatalf("a second first batch: %v", err)
	}
}

func TestHostileEdge(t *testing.T) {
	s := newScene(t)
	var before map[string]string
	regiontest.Until(t, "every replica is caught up", 10*time.Second, func() bool {
		before = s.stored(t)
		return before["hf.acme.ra.rec.e1.b1"] != "" && before["hf.acme.rb.att.e1"] != "" && maps.Equal(before, s.stored(t)) && maps.Equal(before, s.stored(t))
	})
	check := func(t *testing.T) { s.untouched(t, before) }
	t.Run("as a client", func(t *testing.T) { s.asClient(t); check(t) })
	t.Run("as a leaf", func(t *testing.T) { s.asLeaf(t); check(t) })
	t.Run("queue groups", func(t *testing.T) { s.queues(t); check(t) })
	t.Run("reply subjects", func(t *testing.T) { s.replies(t); check(t) })
	t.Run("floods", func(t *testing.T) { s.floods(t); check(t) })
}

// client connects e66 to a hub as a client; errs counts what the server refused.
func (s *scene) client(t *testing.T) (nc *nats.Conn, refused func(what string) bool) {
	t.Helper()
	var mu sync.Mutex
	var errs []string
	nc, err := nats.Connect(s.A.Servers[1].ClientURL(), nats.UserCredentials(s.creds), nats.RootCAs(s.CA.CAFile()), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err.Error())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, func(what string) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(errs, func(e string) bool { return strings.Contains(e, what) })
	}
}

func (s *scene) asClient(t *testing.T) {
	nc, refused := s.client(t)
	for _, subject := range forbiddenPublish() {
		if err := nc.PublishRequest(subject, "_INBOX.edge.e66.x", []byte(evil)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	got := map[string]bool{}
	listen := func(subject string) {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { mu.Lock(); defer mu.Unlock(); got[m.Subject] = true }); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range forbiddenSubscribe() {
		listen(subject)
	}
	listen("_INBOX.edge.e66.>")
	listen("hf.acme.*.hb")
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range forbiddenPublish() {
		mapped := strings.Replace(subject, "$JS.ra.", "$JS.", 1) // a domain's own servers map before they check
		regiontest.Until(t, "publishing to "+subject+" is refused", 5*time.Second, func() bool {
			return refused(fmt.Sprintf("Publish to %q", subject)) || refused(fmt.Sprintf("Publish to %q", mapped))
		})
	}
	for _, subject := range forbiddenSubscribe() {
		regiontest.Until(t, "subscribing to "+subject+" is refused", 5*time.Second, func() bool { return refused(fmt.Sprintf("Subscription to %q", subject)) })
	}
	s.traffic(t)
	regiontest.Until(t, "e66 hears the heartbeat", 5*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return got["hf.acme.ra.hb"] })
	mu.Lock()
	defer mu.Unlock()
	for subject := range got {
		if subject != "hf.acme.ra.hb" {
			t.Errorf("e66 received %s", subject)
		}
	}
}

func (s *scene) dial(t *testing.T, i int) *rawLeaf {
	return dialLeaf(t, s.A.Leafs[i%3].Addr(), s.CA.CAFile(), s.creds, fmt.Sprint("e66-", i))
}

func (s *scene) asLeaf(t *testing.T) {
	for i, subject := range forbiddenPublish() {
		l := s.dial(t, i)
		if l.settled() {
			t.Fatalf("the hub hangs up on an edge that does nothing: %q", l.errs)
		}
		l.publish(subject, "_INBOX.edge.e66.x", evil)
		if !l.settled() { // the hub's words may be lost when it hangs up
			t.Errorf("a leaf publishes to %s", subject)
		}
	}
	// Servers let these pass without permission, for services and acknowledgements;
	// nobody here listens.
	l := s.dial(t, 0)
	for _, subject := range []string{"_R_.x", "$JS.ACK.POL_acme.x.1.1.1.1.1"} {
		l.publish(subject, "_INBOX.edge.e66.x", evil)
	}
	for _, subject := range forbiddenSubscribe() {
		if strings.ContainsAny(subject, "*>") {
			l.subscribe(subject) // taken, and filtered when something is delivered
			continue
		}
		one := s.dial(t, 1)
		one.subscribe(subject)
		if !one.settled() {
			t.Errorf("a leaf subscribes to %s", subject)
		}
	}
	l.subscribe("hf.acme.ra.hb")
	if l.settled() {
		t.Fatalf("the hub hung up: %q", l.errs)
	}
	s.traffic(t)
	regiontest.Until(t, "e66 hears the heartbeat", 5*time.Second, func() bool { return l.received()["hf.acme.ra.hb"] != "" })
	s.traffic(t)
	for subject := range l.received() {
		if subject != "hf.acme.ra.hb" {
			t.Errorf("e66 received %s", subject)
		}
	}
	for _, subject := range l.subs {
		if strings.Contains(subject, "rival") || strings.HasPrefix(subject, "_INBOX.edge.e1") {
			t.Errorf("e66 is shown the interest in %s", subject)
		}
	}
}

// queues joins the groups by which questions are answered.
func (s *scene) queues(t *testing.T) {
	nc, refused := s.client(t)
	for _, subject := range []string{"hf.acme.ra.up.*.>", "hf.acme.ra.up.any.*.who", "hf.acme.>"} {
		if _, err := nc.QueueSubscribe(subject, "gate", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		regiontest.Until(t, "joining "+subject+" is refused", 5*time.Second, func() bool { return refused(fmt.Sprintf("Subscription to %q", subject)) })
	}
	for i := range 3 {
		l := s.dial(t, i)
		for _, subject := range []string{"hf.acme.*.up.*.>", "hf.acme.ra.up.any.*.who", "hf.acme.rb.up.>", "hf.acme.>", ">"} {
			l.subscribe(subject + " gate 1000")
		}
		l.settled()
	}
	start := time.Now()
	for range 200 {
		if time.Since(start) > 20*time.Second {
			t.Fatal("questions of e1 are lost")
		}
		if err := s.honest.Attest(t.Context(), false, 0, []byte("e1 attests")); err != nil {
			t.Fatalf("a question of e1 is lost: %v", err)
		}
		if _, err := (jetstream.Sink{Region: s.edgeRegion()}).Publish(t.Context(), "e1", "b1", 0, []byte("again")); !errors.As(err, new(*bus.FenceError)) {
			t.Fatalf("a question of e1 is lost: %v", err)
		}
	}
}

// replies has servers answer where e66 may not publish.
func (s *scene) replies(t *testing.T) {
	targets := []string{
		"hf.acme.ra.pol.rel.2", "hf.acme.ra.pol.order.1.1", "hf.acme.ra.rec.e1.b1", "hf.acme.ra.att.e1", "hf.acme.ra.lease", "hf.acme.ra.hb", "hf.acme.ra.kill",
		"_INBOX.edge.e1.x", "_INBOX.edge.e66", "_INBOX.edge.e666.x", "_INBOX.hub.ra-1.x", "hf.rival.ra.pol.rel.2", "$SYS.REQ.CLAIMS.UPDATE", "$JS.API.STREAM.DELETE.POL_acme", "$JS.ra.API.STREAM.PURGE.POL_acme", ">", "*",
	}
	asks := []string{"pol", "head.b1", "receipts", "blob." + wire.Sum([]byte("package")).Hex() + ".0", "att", "rec.b1", "nonsense"}
	nc, _ := s.client(t)
	l := s.dial(t, 0)
	gate := s.gate(t)
	var heard sync.Map
	other := regiontest.Connect(t, bus.Config{URLs: []string{s.A.Servers[0].ClientURL()}, CA: s.CA.CAFile(), Creds: s.Creds(t, "acme", "e666", auth.Edge("acme", "e666"))})
	stopOther, err := other.Subscribe(t.Context(), "_INBOX.edge.e666.>", func(m bus.Msg) { t.Errorf("e666 got an answer to e66 on %s", m.Subject) })
	if err != nil {
		t.Fatal(err)
	}
	defer stopOther()
	stop, err := s.hubA.Conn.Subscribe(t.Context(), "hf.acme.ra.hb", func(m bus.Msg) { heard.Store(string(m.Data), true) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, reply := range targets {
		for _, ask := range asks {
			if ask == "att" || ask == "rec.b1" {
				ask = "x" + ask // e66 may store its own; here nothing shall be stored
			}
			if err := nc.PublishRequest("hf.acme.ra.up."+gate+".e66."+ask, reply, []byte(evil)); err != nil && reply != ">" && reply != "*" {
				t.Fatal(err)
			}
			l.publish("hf.acme.ra.up."+gate+".e66."+ask, reply, "x")
		}
		// Message tracing: the server would report to a subject of the sender's choosing.
		for _, header := range []string{"Nats-Trace-Dest", "Nats-Trace-Only"} {
			m := &nats.Msg{Subject: "hf.acme.live.json.e66.deny.x", Data: []byte("x"), Header: nats.Header{"Nats-Trace-Dest": {reply}, header: {reply}}}
			if err := nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
			l.publishHeader("hf.acme.live.json.e66.deny.x", "Nats-Trace-Dest: "+reply, "x")
		}
	}
	nc.Flush()
	l.settled()
	// The gates have worked on all of it when they have answered what came after.
	for range 10 {
		s.traffic(t)
	}
	s.mu.Lock()
	s.seen = slices.DeleteFunc(s.seen, func(subject string) bool { return strings.HasPrefix(subject, "hf.acme.ra.up."+gate+".e66.") }) // its own questions
	s.mu.Unlock()
	heard.Range(func(k, _ any) bool {
		if k != "hb" {
			t.Errorf("the answer of a server came as a heartbeat: %q", k)
		}
		return true
	})
}

// floods sends more than is allowed; the others must not notice.
func (s *scene) floods(t *testing.T) {
	nc, refused := s.client(t)
	if err := nc.Publish("hf.acme.live.json.e66.deny.x", make([]byte, auth.MaxPayload+1)); err == nil {
		t.Error("a client sends more than the maximum")
	}
	for i := range 600 {
		if _, err := nc.Subscribe(fmt.Sprint("_INBOX.edge.e66.", i), func(*nats.Msg) {}); err != nil {
			break
		}
	}
	regiontest.Until(t, "600 subscriptions are too many", 5*time.Second, func() bool { nc.Flush(); return nc.IsClosed() || refused("maximum subscriptions exceeded") })
	l := s.dial(t, 0)
	for i := range 600 {
		l.subscribe(fmt.Sprint("_INBOX.edge.e66.", i))
	}
	if !l.settled() && !l.said("maximum subscriptions exceeded") {
		t.Error("a leaf has 600 subscriptions")
	}
	l = s.dial(t, 0)
	l.send(fmt.Sprintf("LMSG hf.acme.live.json.e66.deny.x %d\r\n", 64<<20))
	l.send(strings.Repeat("x", 2<<20))
	if !l.settled() {
		t.Error("a leaf announces 64 MiB")
	}
	// A gate that is asked more than it works on: e66 waits, e1 does not.
	many, _ := s.client(t)
	if err := many.Flush(); err != nil {
		t.Fatal(err)
	}
	gate := s.gate(t)
	for i := range 2000 {
		many.PublishRequest("hf.acme.ra.up."+gate+".e66.head.b1", fmt.Sprint("_INBOX.edge.e66.x", i), nil)
	}
	start := time.Now()
	regiontest.Until(t, "e1 gets through while e66 asks", 10*time.Second, func() bool {
		return s.honest.Attest(t.Context(), false, 0, []byte("e1 attests")) == nil
	})
	t.Logf("e1 attests in %v while e66 asks 2,000 questions", time.Since(start).Round(time.Millisecond))
}

// gate is the name of the gate that e1 asks.
func (s *scene) gate(t *testing.T) string {
	t.Helper()
	answer, err := s.honest.Conn.Ask(t.Context(), "hf.acme.ra.up.any.e1.who", "", nil)
	if err != nil || len(answer.Data) == 0 {
		t.Fatalf("%q, %v", answer.Data, err)
	}
	return string(answer.Data)
}
