package assembly

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// The metrics of an edge.
var (
	nodeReady      = describe(prometheus.GaugeValue, "ready", "1 if a verified release is in force and the journal can be written.")
	nodeEpoch      = describe(prometheus.GaugeValue, "epoch", "Epoch of the ratchet; 0 if nothing was ever in force.")
	nodeFallback   = describe(prometheus.GaugeValue, "fallback", "1 if the node stepped back to its release's fallback.")
	nodeRoot       = describe(prometheus.GaugeValue, "trust_root_version", "Version of the trust root.")
	nodeStaleness  = describe(prometheus.GaugeValue, "staleness", "1 for the node's staleness.", "state")
	nodeHeartbeat  = describe(prometheus.GaugeValue, "heartbeat_age_seconds", "Age of the youngest heartbeat; -1 if none was ever heard.")
	nodeKills      = describe(prometheus.GaugeValue, "kills", "Kills and lifts that the node knows.")
	nodeKillsLate  = describe(prometheus.GaugeValue, "kills_behind", "1 if the last heartbeat named a kill set that the node does not have.")
	nodeInFlight   = describe(prometheus.GaugeValue, "decisions_in_flight", "Requests that are being decided.")
	nodeDecisions  = describe(prometheus.CounterValue, "decisions_total", "Answers by verdict.", "verdict")
	nodeSpecial    = describe(prometheus.CounterValue, "answers_special_total", "Answers that no policy gave alone: killed, stale, overload, unrecorded, not_durable.", "cause")
	nodeTraps      = describe(prometheus.CounterValue, "module_traps_total", "Module calls that ended without an answer.")
	nodeFuel       = describe(prometheus.CounterValue, "module_fuel_total", "Units of fuel used by module calls.")
	nodeP99        = describe(prometheus.GaugeValue, "decide_p99_seconds", "99th percentile of deciding since the activation.")
	nodeActivate   = describe(prometheus.CounterValue, "activations_total", "Releases put in force.")
	nodeFallbacks  = describe(prometheus.CounterValue, "fallbacks_total", "Steps back to a fallback.")
	nodeHeartbeats = describe(prometheus.CounterValue, "heartbeats_total", "Heartbeats that counted as news.")
	nodeDiscarded  = describe(prometheus.CounterValue, "documents_discarded_total", "Signed documents that were not believed.")
	nodeShadow     = describe(prometheus.CounterValue, "shadow_decisions_total", "Decisions made on a candidate beside what is in force.", "result")
	nodeSecond     = describe(prometheus.CounterValue, "second_engine_decisions_total", "Live decisions made again on the second engine.", "result")
	nodeVectors    = describe(prometheus.CounterValue, "vectors_total", "Golden vectors run since the start.", "result")
	nodeAttested   = describe(prometheus.CounterValue, "attestations_total", "Attestations by what became of them.", "result")
	nodeAlarms     = describe(prometheus.CounterValue, "alarms_total", "Alarms raised by the node itself.")
	nodeJournal    = describe(prometheus.GaugeValue, "journal_records", "Durable records of the running boot.")
	nodePoisoned   = describe(prometheus.GaugeValue, "journal_poisoned", "1 if the journal cannot be written.")
	nodeUsed       = describe(prometheus.GaugeValue, "journal_used_bytes", "Bytes of disk that the journal takes.")
	nodeQuota      = describe(prometheus.GaugeValue, "journal_quota_bytes", "Bytes of disk that the journal may take; 0 is no bound.")
	nodeUnshipped  = describe(prometheus.GaugeValue, "unshipped_records", "Durable records that a region's stream has not acknowledged.", "region")
	nodeUncosigned = describe(prometheus.GaugeValue, "uncosigned_records", "Durable records that a region's ledger has not counter-signed.", "region")
	nodeRebuilt    = describe(prometheus.CounterValue, "leaf_rebuilt_total", "How often the watchdog built the NATS server of the edge anew.")
	nodeLink       = describe(prometheus.GaugeValue, "leaf_connections", "Leaf connections to hubs that are up.")
)

// edgeCollector computes an edge's metrics.
type edgeCollector struct{ *Edge }

func (e *Edge) metrics() http.Handler { return metricsHandler(edgeCollector{e}) }

// Describe names nothing in advance: what an edge has depends on its links.
func (c edgeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect computes them.
func (c edgeCollector) Collect(to chan<- prometheus.Metric) {
	m := c.node.Metrics()
	nodeReady.emit(to, one(m.Ready))
	nodeEpoch.emit(to, float64(m.Epoch))
	nodeFallback.emit(to, one(m.Fallback))
	nodeRoot.emit(to, float64(m.RootVersion))
	for _, s := range []guard.Staleness{guard.Unleased, guard.Fresh, guard.Aging, guard.Stale} {
		nodeStaleness.emit(to, one(m.Staleness == s), s.String())
	}
	age := m.HeartbeatAge.Seconds()
	if m.HeartbeatAge < 0 {
		age = -1
	}
	nodeHeartbeat.emit(to, age)
	nodeKills.emit(to, float64(m.Kills))
	nodeKillsLate.emit(to, one(m.KillsBehind))
	nodeInFlight.emit(to, float64(m.InFlight))
	nodeP99.emit(to, float64(m.Live.P99)/1e9)
	nodeJournal.emit(to, float64(m.Journal))
	nodePoisoned.emit(to, one(m.JournalPoisoned))
	room := c.node.Journal().Space()
	nodeUsed.emit(to, float64(room.Used))
	nodeQuota.emit(to, float64(room.Quota))
	edgeCounters(to, &m)
	if c.uplink != nil && c.uplink.shipper != nil {
		c.behind(to)
	}
	if c.uplink != nil && c.uplink.server != nil {
		nodeRebuilt.emit(to, float64(c.uplink.server.Rebuilt()))
		nodeLink.emit(to, float64(c.uplink.server.NumLeafs()))
	}
}

// behind counts the records that regions do not have yet.
func (c edgeCollector) behind(to chan<- prometheus.Metric) {
	boots := c.node.Journal().Boots()
	for _, r := range c.uplink.shipper.Status() {
		var unshipped, uncosigned uint64
		for _, b := range boots {
			s := r.Boots[b.ID]
			unshipped += b.Size - min(b.Size, max(s.Shipped, b.TrimmedThrough))
			uncosigned += b.Size - min(b.Size, max(s.Cosigned, b.TrimmedThrough))
		}
		nodeUnshipped.emit(to, float64(unshipped), r.Region)
		nodeUncosigned.emit(to, float64(uncosigned), r.Region)
	}
}

func edgeCounters(to chan<- prometheus.Metric, m *edge.Metrics) {
	for _, v := range policy.Verdicts() {
		nodeDecisions.emit(to, float64(m.Decisions[v]), v.String())
	}
	for _, c := range []struct {
		of    gauge
		label string
		n     uint64
	}{
		{nodeSpecial, "killed", m.Killed}, {nodeSpecial, "stale", m.Stale}, {nodeSpecial, "overload", m.Overload}, {nodeSpecial, "unrecorded", m.Unrecorded}, {nodeSpecial, "not_durable", m.NotDurable},
		{nodeShadow, "all", m.Shadowed}, {nodeShadow, "differ", m.ShadowDiffer}, {nodeShadow, "dropped", m.ShadowDropped},
		{nodeSecond, "all", m.Second}, {nodeSecond, "disagreed", m.SecondDisagreed}, {nodeSecond, "dropped", m.SecondDropped}, {nodeSecond, "failed", m.SecondFailed},
		{nodeVectors, "all", m.Vectors}, {nodeVectors, "failed", m.VectorsFailed},
		{nodeAttested, "sent", m.Attested}, {nodeAttested, "failed", m.AttestFailed},
	} {
		c.of.emit(to, float64(c.n), c.label)
	}
	nodeTraps.emit(to, float64(m.Traps))
	nodeFuel.emit(to, float64(m.Fuel))
	nodeActivate.emit(to, float64(m.Activations))
	nodeFallbacks.emit(to, float64(m.Fallbacks))
	nodeHeartbeats.emit(to, float64(m.Heartbeats))
	nodeDiscarded.emit(to, float64(m.Discarded))
	nodeAlarms.emit(to, float64(m.Alarms))
}
