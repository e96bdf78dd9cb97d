// Package jetstream is how Holdfast's planes meet over NATS: the names of
// streams and subjects, a region's hub side (publish, copy between regions,
// feed the ledger) and an edge's side (policy source, record sink).
//
// Nothing here verifies signatures: envelopes and batches are carried as they
// are, and whoever uses them verifies them first.
package jetstream

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// ChunkSize is the length of every chunk of a package but the last, which is
// shorter, in bytes.
const ChunkSize = 512 << 10

// MaxPackage bounds a package that is published, in bytes, uncompressed.
const MaxPackage = 64 << 20

// maxMessage bounds one message of any stream.
const maxMessage = 1 << 20

// A Region is one tenant's part of a region: its streams, seen through any
// connection of the tenant's account.
type Region struct {
	Conn         *bus.Conn
	Tenant, Name string
}

func (r Region) policies() *bus.Stream { return r.Conn.Stream(r.Name, policyStream(r.Tenant)) }
func (r Region) records() *bus.Stream  { return r.Conn.Stream(r.Name, "REC_"+r.Tenant) }
func (r Region) receipts() *bus.Stream { return r.Conn.Stream(r.Name, "RCPT_"+r.Tenant) }

func policyStream(tenant string) string { return "POL_" + tenant }

// prefix begins every subject that the region's streams take.
func (r Region) prefix() string { return "hf." + r.Tenant + "." + r.Name + "." }

// stored matches the announcements of a region's streams for a subject: what
// is announced is on disk.
func (r Region) stored(subject string) string { return announce(r.Tenant, r.Name) + "." + subject }

// announce begins the subjects on which a domain announces what it stored.
func announce(tenant, domain string) string { return "hf." + tenant + ".stored." + domain }

func (r Region) blob(d wire.Digest, chunk int) string {
	return r.prefix() + "pol.blob." + d.Hex() + "." + strconv.Itoa(chunk)
}

func (r Region) release(epoch uint64) string {
	return r.prefix() + "pol.rel." + strconv.FormatUint(epoch, 10)
}

func (r Region) record(node, boot string) string  { return r.prefix() + "rec." + node + "." + boot }
func (r Region) receipt(node, boot string) string { return r.prefix() + "rcpt." + node + "." + boot }

// A Form is how a live decision is encoded.
type Form string

// The forms of live decisions.
const (
	CBOR Form = "cbor"
	JSON Form = "json"
)

// LiveSubject is where an edge publishes a live decision. The point may have
// dots, any other part that is no subject token is made one.
func LiveSubject(tenant string, form Form, node, verdict, point string) string {
	return "hf." + token(tenant) + ".live." + string(form) + "." + token(node) + "." + token(verdict) + "." + tokens(point)
}

// LiveSubjects matches every live decision of a tenant in one form.
func LiveSubjects(tenant string, form Form) string {
	return "hf." + token(tenant) + ".live." + string(form) + ".>"
}

func tokens(s string) string {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = token(p)
	}
	return strings.Join(parts, ".")
}

func token(s string) string {
	if s == "" {
		return "_"
	}
	return strings.Map(func(c rune) rune {
		if c == '.' || c == '*' || c == '>' || c == unicode.ReplacementChar || unicode.IsSpace(c) || unicode.IsControl(c) {
			return '_'
		}
		return c
	}, s)
}

// parseRelease returns the epoch in a release's subject.
func parseRelease(subject string) (epoch uint64, ok bool) {
	t := strings.Split(subject, ".")
	if len(t) != 6 || t[0] != "hf" || t[3] != "pol" || t[4] != "rel" {
		return 0, false
	}
	epoch, err := strconv.ParseUint(t[5], 10, 64)
	return epoch, err == nil && strconv.FormatUint(epoch, 10) == t[5]
}

// parseRecord returns whose records are on a subject.
func parseRecord(subject string) (node, boot string, ok bool) {
	t := strings.Split(subject, ".")
	if len(t) != 6 || t[0] != "hf" || t[3] != "rec" {
		return "", "", false
	}
	return t[4], t[5], true
}
