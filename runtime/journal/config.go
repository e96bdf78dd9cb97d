package journal

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Config says where a journal is and whose it is.
type Config struct {
	Dir          string
	Tenant, Node string
	// Key is the node's log key; its name must be audit.NodeKeyName. Signed opens
	// what it or a key before it signed, see NodeKey; nil is for a node that had no
	// other.
	Key    note.Signer
	Signed note.Verifier
	// Secret is the id of the tenant secret that the keys of parts derive from.
	Secret string
	// Heartbeat returns the digest of the envelope of the last heartbeat that the
	// node heard, for its checkpoints; nil means that it hears none.
	Heartbeat func() wire.Digest
	// FS is the seam for failing disks; nil means the operating system's.
	FS FS
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	Log *slog.Logger
	// SegmentBytes is the size at which a new segment begins; 0 means 16 MiB.
	SegmentBytes int64
	// CheckpointRecords, CheckpointInterval and IdleInterval say when a
	// checkpoint is signed; 0 means 1000, 1 s and 30 s.
	CheckpointRecords  uint64
	CheckpointInterval time.Duration
	IdleInterval       time.Duration
	// ScanBytes is how much of the end of a boot Open reads at least, when a
	// checkpoint vouches for what is before; 0 means 64 MiB.
	ScanBytes int64
	// QuotaBytes bounds what the journal takes of the disk; 0 is no bound. Below
	// LowBytes of free space, 0 means 16 segments, Space.Level is SpaceLow.
	// ReserveBytes are kept for administrative records on a full disk; 0 means
	// 8 MiB, a negative value none.
	QuotaBytes, LowBytes, ReserveBytes int64
	// SpaceInterval is how often room is looked at, 0 means 1 s; OnSpace is told
	// when its level changes. It may append, and must return before Close is called.
	SpaceInterval time.Duration
	OnSpace       func(Space)
	// ScrubBytes is how many bytes a second are read again in the background; 0
	// means 8 MiB, a negative value none. ScrubPause is the time between two passes,
	// 0 means an hour. OnDamage is told of what Scrub finds; it may append, and must
	// return before Close is called.
	ScrubBytes int64
	ScrubPause time.Duration
	OnDamage   func(*Damage)

	// window is audit.WindowRecords, or fewer in tests: Trim ends between windows.
	window uint64
	// kept is keptTrimmed, or fewer in tests.
	kept int
}

// validate checks the configuration and fills in the defaults.
func (cfg *Config) validate() error {
	if !audit.ValidName(cfg.Tenant) || !audit.ValidName(cfg.Node) {
		return fmt.Errorf("journal of tenant %.80q, node %.80q: not names", cfg.Tenant, cfg.Node)
	}
	if cfg.Key == nil || cfg.Key.Name() != audit.NodeKeyName(cfg.Tenant, cfg.Node) {
		return fmt.Errorf("journal: the key is not %s", audit.NodeKeyName(cfg.Tenant, cfg.Node))
	}
	if cfg.FS == nil {
		cfg.FS = osFS{}
	}
	if cfg.Heartbeat == nil {
		cfg.Heartbeat = func() (none wire.Digest) { return none }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.SegmentBytes = cmp.Or(cfg.SegmentBytes, 16<<20)
	cfg.CheckpointRecords = cmp.Or(cfg.CheckpointRecords, 1000)
	cfg.CheckpointInterval = cmp.Or(cfg.CheckpointInterval, time.Second)
	cfg.IdleInterval = cmp.Or(cfg.IdleInterval, 30*time.Second)
	cfg.ScanBytes = cmp.Or(cfg.ScanBytes, 64<<20)
	cfg.ScrubBytes = cmp.Or(cfg.ScrubBytes, 8<<20)
	cfg.ScrubPause = cmp.Or(cfg.ScrubPause, time.Hour)
	cfg.kept = cmp.Or(cfg.kept, keptTrimmed)
	cfg.window = cmp.Or(cfg.window, audit.WindowRecords)
	cfg.LowBytes = cmp.Or(cfg.LowBytes, 16*cfg.SegmentBytes)
	cfg.ReserveBytes = cmp.Or(cfg.ReserveBytes, 8<<20)
	cfg.SpaceInterval = cmp.Or(cfg.SpaceInterval, time.Second)
	return nil
}
