// Package jetstream is how Holdfast's planes meet over NATS: the names of
// streams and subjects, a region's hub side (publish, lead, copy between
// regions, feed the ledger, answer edges) and an edge's side (source, sink).
//
// Edges do not touch JetStream. They ask the gate, which every hub server runs:
// JetStream answers to whatever subject a request names, with the server's own
// authority, and that subject may be one that a stream stores.
//
// Nothing here verifies signatures: envelopes and batches are carried as they
// are, and whoever uses them verifies them first.
package jetstream

import (
	"fmt"
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
// connection that may use them. Edges use a Link.
type Region struct {
	Conn         *bus.Conn
	Tenant, Name string
	// NoDomain is for servers that the user runs without a JetStream domain;
	// otherwise the domain is the region's name.
	NoDomain bool
	// Replicas is on how many servers each stream is; 0 is 1.
	Replicas int
}

func (r Region) stream(kind string) *bus.Stream {
	domain := r.Name
	if r.NoDomain {
		domain = ""
	}
	return r.Conn.Stream(domain, kind+"_"+r.Tenant)
}

func (r Region) policies() *bus.Stream { return r.stream("POL") }
func (r Region) records() *bus.Stream  { return r.stream("REC") }
func (r Region) receipts() *bus.Stream { return r.stream("RCPT") }
func (r Region) state() *bus.Stream    { return r.stream("STATE") }

// prefix begins every subject that the region's streams take.
func (r Region) prefix() string { return prefix(r.Tenant, r.Name) }

func prefix(tenant, region string) string { return "hf." + tenant + "." + region + "." }

// stored matches the announcements of a region's streams for a subject: what
// is announced is on disk.
func (r Region) stored(subject string) string { return announce(r.Tenant, r.Name) + "." + subject }

// announce begins the subjects on which a region announces what it stored.
func announce(tenant, region string) string { return "hf." + tenant + ".stored." + region }

func (r Region) pol(name ...string) string { return r.prefix() + "pol." + strings.Join(name, ".") }

func (r Region) blob(d wire.Digest, chunk int) string {
	return r.prefix() + "blob." + d.Hex() + "." + strconv.Itoa(chunk)
}

func (r Region) record(node, boot string) string  { return r.prefix() + "rec." + node + "." + boot }
func (r Region) receipt(node, boot string) string { return r.prefix() + "rcpt." + node + "." + boot }

func (r Region) attestation(node string) string { return r.prefix() + "att." + node }
func (r Region) activation(node, epoch string) string {
	return r.prefix() + "act." + node + "." + epoch
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// number reads what decimal wrote, and nothing else.
func number(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && decimal(n) == s
}

// checkToken refuses what is no single token of a subject.
func checkToken(what, s string) error {
	if s == "" || len(s) > maxToken || token(s) != s {
		return fmt.Errorf("%s %.80q is no part of a subject", what, s)
	}
	return nil
}

// maxToken bounds one part of a subject, in bytes.
const maxToken = 256

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

// parseRecord returns whose records are on a subject.
func parseRecord(subject string) (node, boot string, ok bool) { return parseBoot(subject, "rec") }

// parseBoot returns whose boot a subject of that kind is about.
func parseBoot(subject, kind string) (node, boot string, ok bool) {
	t := strings.Split(subject, ".")
	if len(t) != 6 || t[0] != "hf" || t[3] != kind {
		return "", "", false
	}
	return t[4], t[5], true
}
