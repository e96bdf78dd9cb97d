package bundle

import (
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// MaxHeartbeatLife bounds how far a heartbeat's expiry lies behind its time.
const MaxHeartbeatLife = time.Hour

// A Heartbeat is a region's word that it is there and what it knows: TUF's
// timestamp role. A node that hears none grows stale. It is signed by a key of
// role heartbeat whose person is the region's name.
type Heartbeat struct {
	Tenant string `cbor:"tenant"`
	Region string `cbor:"region"`
	// Serial rises with every heartbeat of the region.
	Serial uint64 `cbor:"serial"`
	// Time and Expires are the region's clock, in nanoseconds since 1970.
	Time    int64 `cbor:"time"`
	Expires int64 `cbor:"expires"`
	// RootVersion, Epoch and Release are the newest trust root and release that
	// the region has; 0 and zero for none.
	RootVersion uint64      `cbor:"root_version"`
	Epoch       uint64      `cbor:"epoch"`
	Release     wire.Digest `cbor:"release"`
	// Order is the serial of the newest rollout order of Epoch, 0 for none.
	Order uint64 `cbor:"order,omitempty"`
	// Kills is the digest of the region's kill set, KillCount its length.
	Kills     wire.Digest `cbor:"kills"`
	KillCount uint64      `cbor:"kill_count,omitempty"`
}

// A SignedHeartbeat is a heartbeat whose signature was verified.
type SignedHeartbeat struct {
	Heartbeat
	Signed
}

// SignHeartbeat validates h and returns its envelope.
func SignHeartbeat(h *Heartbeat, key *PrivateKey) ([]byte, error) {
	return signDocument(HeartbeatType, h, []*PrivateKey{key})
}

// OpenHeartbeat verifies a heartbeat and that its region's own key signed it.
// Whether it is news, or has expired, is the caller's to judge.
func (r *TrustRoot) OpenHeartbeat(env []byte) (*SignedHeartbeat, error) {
	h := &SignedHeartbeat{}
	var err error
	if h.Signed, err = r.open(env, HeartbeatType, RoleHeartbeat, 1, &h.Heartbeat); err == nil {
		err = h.byRegion(h.Region)
	}
	if err != nil {
		return nil, fmt.Errorf("open heartbeat: %w", err)
	}
	return h, nil
}

func (h *Heartbeat) check() error {
	if err := first(CheckTenant(h.Tenant), checkToken("region", h.Region, "-_"), checkTime("time", h.Time)); err != nil {
		return err
	}
	switch {
	case h.Serial == 0:
		return fmt.Errorf("serials begin at 1")
	case h.Expires <= h.Time || h.Expires-h.Time > int64(MaxHeartbeatLife):
		return fmt.Errorf("expires %v after its time; more than 0, at most %v", time.Duration(h.Expires-h.Time), MaxHeartbeatLife)
	case (h.Epoch == 0) != h.Release.IsZero():
		return fmt.Errorf("epoch %d with release %s", h.Epoch, h.Release)
	case h.KillCount > MaxKills:
		return fmt.Errorf("%d kills; at most %d", h.KillCount, MaxKills)
	}
	return nil
}
