package jetstream

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// Bounds of one request of what is there.
const (
	readMessages = 256
	readBytes    = 4 << 20
)

// SignedObjects returns every signed object that the region has now, in the
// order in which it stored them. They are not verified.
func (r Region) SignedObjects(ctx context.Context) ([]Object, error) {
	var out []Object
	err := r.all(ctx, r.policies(), r.pol(">"), func(m bus.Msg) {
		for _, o := range r.objects([]bus.Msg{m}) {
			if o.signed() {
				out = append(out, o)
			}
		}
	})
	return out, err
}

// StoredAttestations calls take with what Attestations would, for what is there
// now.
func (r Region) StoredAttestations(ctx context.Context, take func(node string, first bool, epoch uint64, msg []byte, at time.Time)) error {
	return r.all(ctx, r.state(), r.prefix()+">", func(m bus.Msg) { r.attested(m, take) })
}

// StoredReceipt returns the newest receipt of a boot, nil when there is none. It
// is not verified.
func (r Region) StoredReceipt(ctx context.Context, node, boot string) ([]byte, error) {
	m, err := r.receipts().Last(ctx, r.receipt(node, boot))
	if errors.Is(err, bus.ErrNotFound) {
		return nil, nil
	}
	return m.Data, err
}

// attested gives out a message of the STATE stream, if it is an attestation.
func (r Region) attested(m bus.Msg, take func(node string, first bool, epoch uint64, msg []byte, at time.Time)) {
	parts := strings.Split(strings.TrimPrefix(m.Subject, r.prefix()), ".")
	switch {
	case len(parts) == 2 && parts[0] == "att":
		take(parts[1], false, 0, m.Data, m.Time)
	case len(parts) == 3 && parts[0] == "act":
		if epoch, ok := number(parts[2]); ok {
			take(parts[1], true, epoch, m.Data, m.Time)
		}
	}
}

// all reads a stream from its beginning to its end as it is now.
func (r Region) all(ctx context.Context, s *bus.Stream, subject string, take func(bus.Msg)) error {
	for seq := uint64(1); ; {
		group, err := s.Batch(ctx, seq, subject, readMessages, readBytes)
		if errors.Is(err, bus.ErrNotFound) || err == nil && len(group) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range group {
			take(m)
		}
		seq = group[len(group)-1].Seq + 1
	}
}
