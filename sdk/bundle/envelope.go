package bundle

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
)

// envelope is a DSSE envelope: JSON around the signed bytes.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"` // standard base64
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // standard base64
}

// pae is DSSE's pre-authentication encoding: what is signed.
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+32)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(append(append(b, ' '), payloadType...), ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	return append(append(b, ' '), payload...)
}

// Sign returns a DSSE envelope of payload with one signature per key.
func Sign(payloadType string, payload []byte, keys ...*PrivateKey) ([]byte, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("sign %s: %d bytes; at most %d", payloadType, len(payload), MaxPayload)
	}
	e := envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	return e.sign(payload, keys)
}

// AddSignature returns the envelope with the key's signature added, so that a
// second person can sign what the first one signed. It verifies nothing.
func AddSignature(env []byte, payloadType string, key *PrivateKey) ([]byte, error) {
	e, payload, err := parseEnvelope(env, payloadType)
	if err != nil {
		return nil, err
	}
	return e.sign(payload, []*PrivateKey{key})
}

func (e *envelope) sign(payload []byte, keys []*PrivateKey) ([]byte, error) {
	message := pae(e.PayloadType, payload)
	for _, k := range keys {
		sig := base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, message))
		e.Signatures = append(e.Signatures, signature{KeyID: k.ID, Sig: sig})
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", e.PayloadType, err)
	}
	return append(b, '\n'), nil
}

// parseEnvelope reads an envelope of the type and nothing in it; the payload is
// still untrusted.
func parseEnvelope(env []byte, payloadType string) (*envelope, []byte, error) {
	e, payload, err := readEnvelope(env)
	if e != nil && e.PayloadType != payloadType { // also when it is no envelope otherwise
		return nil, nil, fmt.Errorf("%w: %.80q, not %q", ErrPayloadType, e.PayloadType, payloadType)
	}
	if err != nil {
		return nil, nil, err
	}
	return e, payload, nil
}

// readEnvelope reads an envelope of any type. With an error the envelope is nil,
// unless it was JSON.
func readEnvelope(env []byte) (*envelope, []byte, error) {
	if len(env) > MaxEnvelope {
		return nil, nil, fmt.Errorf("%w: %d bytes; at most %d", ErrEnvelope, len(env), MaxEnvelope)
	}
	var e envelope
	if err := json.Unmarshal(env, &e, json.RejectUnknownMembers(true)); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	payload, err := decodeBase64(e.Payload)
	switch {
	case err != nil:
		return &e, nil, fmt.Errorf("%w: payload: %w", ErrEnvelope, err)
	case len(payload) == 0 || len(payload) > MaxPayload:
		return &e, nil, fmt.Errorf("%w: payload of %d bytes; 1 to %d", ErrEnvelope, len(payload), MaxPayload)
	case len(e.Signatures) > MaxSignatures:
		return &e, nil, fmt.Errorf("%w: %d signatures; at most %d", ErrEnvelope, len(e.Signatures), MaxSignatures)
	}
	return &e, payload, nil
}

// signers returns the keys of keys that signed payload, one as often as it did.
// A signature that names one of keys and does not verify with it is an error; one
// of another key counts for nothing, and is the error when nobody else signed.
func (e *envelope) signers(payload []byte, keys []Key) ([]Key, error) {
	message := pae(e.PayloadType, payload)
	byID := map[string]Key{}
	for _, k := range keys {
		byID[k.ID] = k
	}
	var signers []Key
	unknown := ""
	for _, s := range e.Signatures {
		k, ok := byID[s.KeyID]
		if !ok {
			unknown = s.KeyID
			continue
		}
		sig, err := decodeBase64(s.Sig)
		if err != nil {
			return nil, fmt.Errorf("%w: signature of key %s: %w", ErrEnvelope, k.ID, err)
		}
		if len(sig) != ed25519.SignatureSize || !ed25519.Verify(k.Public, message, sig) {
			return nil, fmt.Errorf("%w: key %s (%s %s)", ErrSignature, k.ID, k.Role, k.Person)
		}
		signers = append(signers, k)
	}
	if len(signers) == 0 && unknown != "" {
		return nil, fmt.Errorf("%w: key id %.80q", ErrUnknownKey, unknown)
	}
	return signers, nil
}
