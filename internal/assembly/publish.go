package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/schema"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// trustRootLifetime is how long the trust root of a fleet on one machine holds.
const trustRootLifetime = 365 * 24 * time.Hour

// laptopKeys are the keys of a fleet on one machine, by file name. In a real
// fleet they are on several machines and never meet.
func (h *Home) laptopKeys() []laptopKey {
	keys := []laptopKey{
		{"root", bundle.RoleRoot, "laptop-root"}, {"author", bundle.RoleAuthor, "laptop-author"}, {"approver", bundle.RoleApprover, "laptop-approver"},
		{"enrol", bundle.RoleEnrol, "laptop-enrol"}, {"kill", bundle.RoleKill, "laptop-kill"}, {"kill-2", bundle.RoleKill, "laptop-kill-2"},
		{"data", bundle.RoleData, "laptop-data"}, {"data-2", bundle.RoleData, "laptop-data-2"},
	}
	for _, region := range h.beating() {
		keys = append(keys, laptopKey{"heartbeat-" + region, bundle.RoleHeartbeat, region})
	}
	return keys
}

type laptopKey struct {
	file   string
	role   bundle.Role
	person string
}

// beating are the regions that say heartbeats; a fleet without regions has one of
// its own for that.
func (h *Home) beating() []string {
	if names := h.RegionNames(); len(names) > 0 {
		return names
	}
	return []string{localRegion}
}

// localRegion is who says heartbeats in a fleet without regions.
const localRegion = "local"

// trust makes or reads the keys of the laptop's people and the trust root that
// names them.
func (h *Home) trust() error {
	var public []bundle.Key
	h.private = map[string]*bundle.PrivateKey{}
	for _, want := range h.laptopKeys() {
		k, err := loadOrCreatePrivateKey(h.layout.PrivateKey(want.file), want)
		if err != nil {
			return err
		}
		h.private[want.file] = k
		public = append(public, k.Key)
	}
	h.signers = []*bundle.PrivateKey{h.private["author"], h.private["approver"]}
	envelope, err := os.ReadFile(h.layout.TrustRoot())
	if errors.Is(err, fs.ErrNotExist) {
		root := bundle.NewTrustRoot(h.cfg.Tenant, time.Now().Add(trustRootLifetime), public...)
		if envelope, err = bundle.SignTrustRoot(root, h.private["root"]); err == nil {
			err = writeNew(h.layout.TrustRoot(), envelope)
		}
	}
	if err != nil {
		return err
	}
	if h.root, err = bundle.OpenTrustRoot(envelope, time.Now()); err != nil {
		return err
	}
	if !h.root.HasRole(bundle.RoleHeartbeat) || !h.root.HasRole(bundle.RoleEnrol) {
		return fmt.Errorf("%w: its trust root knows no heartbeats and no enrolments; use another --dir", ErrOtherFleet)
	}
	return nil
}

func loadOrCreatePrivateKey(path string, want laptopKey) (*bundle.PrivateKey, error) {
	k, err := bundle.ReadPrivateKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = bundle.GenerateKey(want.role, want.person); err != nil {
		return nil, err
	}
	return k, k.WriteFile(path)
}

// A Published is a release that was handed over.
type Published struct {
	Epoch  uint64
	Digest wire.Digest
	// At is when the signed release was handed over; its packages were there before.
	At time.Time
}

// Publish signs a release with the given points, as author and as approver, and
// puts it into the home's folder, packages first. A folder whose newest release
// has the same points keeps it: nothing is published. Fleet.Publish also hands
// it to the regions.
func (h *Home) Publish(points []bundle.Point, packages map[wire.Digest][]byte) (Published, error) {
	return h.publish(points, packages, nil)
}

// publish also calls handOver, when there is one, with the signed release.
func (h *Home) publish(points []bundle.Point, packages map[wire.Digest][]byte, handOver func(Published, []byte) (time.Time, error)) (p Published, err error) {
	if err := h.checkParams(points, packages); err != nil {
		return p, err
	}
	last, err := h.lastRelease()
	if err != nil {
		return p, err
	}
	if last == nil || !reflect.DeepEqual(last.Points, points) {
		if last, err = h.sign(last, points); err != nil {
			return p, err
		}
	}
	for d, file := range packages {
		if err := writeNew(filepath.Join(h.layout.Published(), "packages", d.Hex()+".hfp"), file); err != nil {
			return p, err
		}
	}
	p = Published{Epoch: last.Epoch, Digest: last.Digest, At: time.Now()}
	// Kept before it is handed over: what is tried again are the same bytes.
	if err := writeNew(filepath.Join(h.layout.Published(), "releases", fmt.Sprintf("%020d.dsse", p.Epoch)), last.Envelope); err != nil {
		return p, err
	}
	if handOver != nil {
		if p.At, err = handOver(p, last.Envelope); err != nil {
			return p, fmt.Errorf("publish epoch %d: %w", p.Epoch, err)
		}
	}
	return p, nil
}

// checkParams refuses parameters that break the schema of their package, before
// anything is signed: nodes would refuse the release.
func (h *Home) checkParams(points []bundle.Point, packages map[wire.Digest][]byte) error {
	for _, p := range points {
		for _, ref := range p.Packages {
			file, ok := packages[ref.Digest]
			if !ok { // it was published before
				var err error
				if file, err = os.ReadFile(filepath.Join(h.layout.Published(), "packages", ref.Digest.Hex()+".hfp")); err != nil {
					return fmt.Errorf("point %s: package %s: %w", p.Name, ref.Name, err)
				}
			}
			pkg, _, err := bundle.OpenPackage(file, bundle.MaxPackage)
			if err == nil {
				err = schema.CheckParams(pkg, pkg.Merged(ref.Params))
			}
			if err != nil {
				return fmt.Errorf("point %s: package %s: %w", p.Name, ref.Name, err)
			}
		}
	}
	return nil
}

// sign makes the release that follows last, which is nil for the first one.
func (h *Home) sign(last *bundle.SignedRelease, points []bundle.Point) (*bundle.SignedRelease, error) {
	rel := &bundle.Release{
		Tenant: h.cfg.Tenant, Epoch: 1, Fallback: bundle.FallbackNone, Created: time.Now().Unix(), Points: points,
	}
	if last != nil {
		rel.Epoch, rel.Previous, rel.Fallback = last.Epoch+1, last.Digest, bundle.FallbackPrevious
	}
	envelope, err := bundle.SignRelease(rel, h.signers...)
	if err != nil {
		return nil, err
	}
	return h.root.OpenRelease(envelope, time.Now())
}

// lastRelease is the newest one that this folder has published, or nil.
func (h *Home) lastRelease() (*bundle.SignedRelease, error) {
	dir := filepath.Join(h.layout.Published(), "releases")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".dsse") {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	envelope, err := os.ReadFile(filepath.Join(dir, slices.Max(names)))
	if err != nil {
		return nil, err
	}
	return h.root.OpenRelease(envelope, time.Now())
}

// writeNew writes a file beside its name and renames it, so that a reader sees
// all of it or nothing.
func writeNew(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
