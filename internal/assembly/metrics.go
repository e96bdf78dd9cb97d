package assembly

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-policy/holdfast/control/registry"
)

// A gauge describes one metric whose value is computed when it is asked for.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func describe(kind prometheus.ValueType, name, help string, labels ...string) gauge {
	return gauge{prometheus.NewDesc("holdfast_"+name, help, labels, nil), kind}
}

// emit gives out one value; label values in the order of the description.
func (g gauge) emit(to chan<- prometheus.Metric, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(g.desc, g.kind, v, labels...)
}

// metricsHandler answers Prometheus from a collector.
func metricsHandler(c prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// The metrics of a hub server, one set for each tenant.
var (
	hubLeading   = describe(prometheus.GaugeValue, "hub_leading", "1 if this hub server leads the region for the tenant.", "tenant", "region")
	hubReady     = describe(prometheus.GaugeValue, "hub_ready", "1 if the tenant's streams are there.", "tenant", "region")
	fleetNodes   = describe(prometheus.GaugeValue, "fleet_nodes", "Enrolled nodes by what they enforce: in_force, other or away.", "tenant", "region", "state")
	fleetEpoch   = describe(prometheus.GaugeValue, "fleet_epoch", "Epoch of the release that every node should enforce.", "tenant", "region")
	fleetWorst   = describe(prometheus.GaugeValue, "fleet_propagation_worst_seconds", "From the storing of the release in force to the last node's first attestation; -1 if unknown.", "tenant", "region")
	fleetRollout = describe(prometheus.GaugeValue, "fleet_rollout", "1 for the state of the newest release's rollout through its rings.", "tenant", "region", "state")
	fleetKills   = describe(prometheus.GaugeValue, "fleet_kills", "Kills that are not lifted.", "tenant", "region")
	fleetUnkill  = describe(prometheus.GaugeValue, "fleet_kills_unconfirmed", "Nodes that have not confirmed a kill, summed over kills.", "tenant", "region")
	webhookSent  = describe(prometheus.CounterValue, "alarm_deliveries_total", "Alarms by what became of their delivery to the webhook.", "result")
	ledgerSize   = describe(prometheus.GaugeValue, "ledger_records", "Records that the region's ledger has counter-signed.", "tenant", "region")
	ledgerLacks  = describe(prometheus.GaugeValue, "ledger_missing", "Records that somebody signed for and that this server's archive lacks.", "tenant", "region")
	ledgerBad    = describe(prometheus.GaugeValue, "ledger_evidence", "Batches that the ledger refused and kept as evidence.", "tenant", "region")
)

// hubCollector computes a hub's metrics.
type hubCollector struct{ *Hub }

func (h *Hub) metrics() http.Handler { return metricsHandler(hubCollector{h}) }

// Describe names every metric of a hub.
func (c hubCollector) Describe(to chan<- *prometheus.Desc) {
	for _, g := range []gauge{hubLeading, hubReady, fleetNodes, fleetEpoch, fleetWorst, fleetRollout, fleetKills, fleetUnkill, webhookSent, ledgerSize, ledgerLacks, ledgerBad} {
		to <- g.desc
	}
}

// Collect computes them.
func (c hubCollector) Collect(to chan<- prometheus.Metric) {
	for _, t := range c.tenants {
		name, region := t.cfg.Name, c.cfg.Region
		hubLeading.emit(to, one(t.lead.Leading()), name, region)
		hubReady.emit(to, one(t.ready() == nil), name, region)
		fleetMetrics(to, t.lead.View(), name, region)
		s := t.ledger.Status()
		ledgerSize.emit(to, float64(s.Records), name, region)
		missing := uint64(0)
		for _, b := range s.Boots {
			for _, r := range b.Missing {
				missing += r.To + 1 - r.From
			}
		}
		ledgerLacks.emit(to, float64(missing), name, region)
		ledgerBad.emit(to, float64(s.Evidence), name, region)
	}
	if w := c.webhook.Load(); w != nil {
		sent, failed, dropped := w.Counts()
		webhookSent.emit(to, float64(sent), "sent")
		webhookSent.emit(to, float64(failed), "failed")
		webhookSent.emit(to, float64(dropped), "dropped")
	}
}

func fleetMetrics(to chan<- prometheus.Metric, v registry.View, tenant, region string) {
	fleetNodes.emit(to, float64(v.InForce.Nodes), tenant, region, "in_force")
	fleetNodes.emit(to, float64(len(v.InForce.Away)), tenant, region, "away")
	fleetNodes.emit(to, float64(len(v.InForce.Other)), tenant, region, "other")
	fleetEpoch.emit(to, float64(v.InForce.Epoch), tenant, region)
	worst := v.InForce.WorstPropagation
	if worst >= 0 {
		worst /= 1e3
	}
	fleetWorst.emit(to, worst, tenant, region)
	if v.Rollout != nil {
		fleetRollout.emit(to, 1, tenant, region, v.Rollout.State)
	}
	fleetKills.emit(to, float64(len(v.Kills)), tenant, region)
	unconfirmed := 0
	for _, k := range v.Kills {
		unconfirmed += len(k.NotConfirmed)
	}
	fleetUnkill.emit(to, float64(unconfirmed), tenant, region)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
