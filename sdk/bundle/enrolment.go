package bundle

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Bounds of an enrolment.
const (
	MaxLabels = 32
	// MaxFormerKeys bounds the log keys that a node had before.
	MaxFormerKeys = 32
	maxUser       = 128 // bytes of a user's public key
)

// An Enrolment makes a node one of the fleet: it binds the node's name to its
// log key. The one with the highest serial counts; a retired node leaves every
// count. It is signed in the role enrol.
type Enrolment struct {
	Tenant string `cbor:"tenant"`
	Node   string `cbor:"node"` // a name without dots
	// Serial is 1 for the first enrolment of the name and rises.
	Serial uint64 `cbor:"serial"`
	// LogKey is the note verifier key of the node's log.
	LogKey string `cbor:"log_key"`
	// Labels choose the node for the rings of releases.
	Labels map[string]string `cbor:"labels,omitempty"`
	// User is the public key of the node's NATS user, "" when it has none of ours.
	User string `cbor:"user,omitempty"`
	// MinEpoch is the lowest epoch that a node may begin with: it pins the
	// ratchet of a node that comes back without its disk.
	MinEpoch uint64 `cbor:"min_epoch,omitempty"`
	// Secret is the id of the tenant's secret that the node was given: the first 8
	// bytes of its SHA-256, in hexadecimal digits; "" when it makes its own.
	Secret string `cbor:"secret,omitempty"`
	// Created is in nanoseconds since 1970.
	Created int64 `cbor:"created"`
	Retired bool  `cbor:"retired,omitempty"`
	// Former are the log keys that the node had before, the oldest first: what they
	// signed stays the node's.
	Former []FormerKey `cbor:"former,omitempty"`
}

// A FormerKey is a log key that was replaced.
type FormerKey struct {
	Key string `cbor:"key"` // a note verifier key
	// Until is the counter of the last boot for which it counts, for one that may be
	// in wrong hands; 0 is no end.
	Until uint64 `cbor:"until,omitempty"`
}

// A SignedEnrolment is an enrolment whose signatures were verified.
type SignedEnrolment struct {
	Enrolment
	Signed
	Key note.Verifier // LogKey, read
}

// SignEnrolment validates e and returns its envelope.
func SignEnrolment(e *Enrolment, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(EnrolmentType, e, keys)
}

// OpenEnrolment verifies an enrolment's envelope and reads it.
func (r *TrustRoot) OpenEnrolment(env []byte) (*SignedEnrolment, error) {
	e := &SignedEnrolment{}
	var err error
	if e.Signed, err = r.open(env, EnrolmentType, RoleEnrol, 1, &e.Enrolment); err == nil {
		e.Key, err = note.NewVerifier(e.LogKey)
	}
	if err != nil {
		return nil, fmt.Errorf("open enrolment: %w", err)
	}
	return e, nil
}

// UnverifiedEnrolment reads an enrolment that the caller made. What comes from
// outside is for OpenEnrolment.
func UnverifiedEnrolment(env []byte) (*Enrolment, error) {
	_, payload, err := parseEnvelope(env, EnrolmentType)
	if err != nil {
		return nil, fmt.Errorf("read enrolment: %w", err)
	}
	e := &Enrolment{}
	if err = wire.Unmarshal(payload, e); err == nil {
		err = e.check()
	}
	if err != nil {
		return nil, fmt.Errorf("read enrolment: %w", err)
	}
	return e, nil
}

func (e *Enrolment) check() error {
	if err := first(CheckTenant(e.Tenant), checkToken("node", e.Node, "-_"), checkTime("created", e.Created)); err != nil {
		return err
	}
	v, err := note.NewVerifier(e.LogKey)
	switch {
	case err != nil:
		return fmt.Errorf("log key: %w", err)
	case v.Name() != "holdfast/"+e.Tenant+"/"+e.Node:
		return fmt.Errorf("log key is named %.200q, not holdfast/%s/%s", v.Name(), e.Tenant, e.Node)
	case e.Serial == 0:
		return errors.New("serials begin at 1")
	case e.Secret != "" && !secretID(e.Secret):
		return fmt.Errorf("secret %.40q is not 16 hexadecimal digits", e.Secret)
	case len(e.Former) > MaxFormerKeys:
		return fmt.Errorf("%d former log keys; at most %d", len(e.Former), MaxFormerKeys)
	case len(e.User) > maxUser:
		return fmt.Errorf("user of %d bytes; at most %d", len(e.User), maxUser)
	}
	return first(checkText("user", e.User), checkLabels(e.Labels), e.checkFormer(v.Name()))
}

func (e *Enrolment) checkFormer(name string) error {
	seen := map[string]bool{e.LogKey: true}
	for _, f := range e.Former {
		v, err := note.NewVerifier(f.Key)
		if err != nil {
			return fmt.Errorf("former log key: %w", err)
		}
		if v.Name() != name || seen[f.Key] {
			return fmt.Errorf("former log key %.200q is of another node, or there twice", f.Key)
		}
		seen[f.Key] = true
	}
	return nil
}

func secretID(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

func checkLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%d labels; at most %d", len(labels), MaxLabels)
	}
	for name, value := range labels {
		if err := first(checkToken("label", name, "-_./"), checkToken("value of label "+name, value, "-_./")); err != nil {
			return err
		}
	}
	return nil
}
