//go:build linux

// Package lossyfs is a disk for tests: the kernel mounts it, so that real
// processes write to it, and it can lose power. Then all that was not synced is
// lost, or torn, or there in another order than it was written in.
package lossyfs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Disk is a file system in memory. A file's content and size are durable when
// the file was synced, and a name when its folder was: the sync of a file says
// nothing of its name. Permissions and times are those of the name.
type Disk struct {
	mu   sync.Mutex
	root *node
	last uint64 // the youngest node's number
	// generation counts losses of power: a mount of an older one is dead.
	generation int
	latency    time.Duration
	fault      func(op, name string) syscall.Errno
	lost       Lost
}

// Lost counts what a loss of power found not to be durable, whether it kept it
// or not.
type Lost struct{ Writes, Names int }

// A node is a file, a folder or a symbolic link, whatever its names are.
type node struct {
	id     uint64
	mode   uint32 // with its type
	time   time.Time
	target string // of a symbolic link

	now, durable content
	pending      []change // since durable, oldest first
	committed    int      // how many changes were pending before those

	names map[string]*node   // of a folder
	since map[string][]*node // the durable value first, nil for none
}

// content is a file's: behind bytes it is zero up to size.
type content struct {
	bytes []byte
	size  int64
}

// A change is a write, or where data is nil a change of the size.
type change struct {
	off  int64
	data []byte
}

// NewDisk returns an empty disk. Every sync of a file takes latency: a disk that
// takes no time has next to nothing in flight when its power goes.
func NewDisk(latency time.Duration) *Disk {
	d := &Disk{latency: latency}
	d.root = d.newNode(syscall.S_IFDIR | 0o700)
	return d
}

func (d *Disk) newNode(mode uint32) *node {
	d.last++
	n := &node{id: d.last, mode: mode, time: time.Now()}
	if n.folder() {
		n.names, n.since = map[string]*node{}, map[string][]*node{}
	}
	return n
}

func (n *node) folder() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// Fault asks f before every operation of one of the kinds create, write, size,
// sync and syncdir for the error that it has; 0 is none. name is what a file was
// created as.
func (d *Disk) Fault(f func(op, name string) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Settle makes all that is on the disk durable.
func (d *Disk) Settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.settle()
}

func (n *node) settle() {
	n.commit(n.committed + len(n.pending))
	clear(n.since)
	for _, child := range n.names {
		child.settle()
	}
}

// PowerOff loses power: what is mounted answers EIO from now on, and the next
// mount finds what is left. What was in flight is there or not sector by sector
// and name by name, as the seed has it; a seed decides how much of it, too.
func (d *Disk) PowerOff(seed uint64) Lost {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation++
	d.lost = Lost{}
	rng := rand.New(rand.NewPCG(seed, 5))
	s := &survey{
		disk: d, rng: rng, done: map[*node]*node{},
		share: []float64{0, 0.5, 0.9, 1}[rng.IntN(4)], sector: 512 << rng.IntN(4),
	}
	d.root = s.node(d.root)
	return d.lost
}

// A survey finds what is left after a loss of power.
type survey struct {
	disk   *Disk
	rng    *rand.Rand
	share  float64 // of what was in flight
	sector int
	done   map[*node]*node
}

// node is what is left of one; a file that has two names is one file.
func (s *survey) node(n *node) *node {
	if left := s.done[n]; left != nil {
		return left
	}
	left := s.disk.newNode(n.mode)
	left.time, left.target = n.time, n.target
	s.done[n] = left
	left.now = s.content(n)
	left.durable = left.now.clone()
	if !n.folder() {
		return left
	}
	chosen := maps.Clone(n.names)
	for _, name := range slices.Sorted(maps.Keys(n.since)) {
		s.disk.lost.Names++
		values := n.since[name]
		if chosen[name] = values[s.rng.IntN(len(values))]; chosen[name] == nil {
			delete(chosen, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if child := chosen[name]; !child.folder() || s.done[child] == nil { // a folder has one name
			left.names[name] = s.node(child)
		}
	}
	return left
}

// content is what was synced, and some of the sectors written since.
func (s *survey) content(n *node) content {
	out := n.durable.clone()
	for _, c := range n.pending {
		s.disk.lost.Writes++
		if c.data == nil {
			if s.keeps() {
				out.resize(c.off)
			}
			continue
		}
		for at := 0; at < len(c.data); {
			end := min(len(c.data), at+s.sector-int((c.off+int64(at))%int64(s.sector)))
			if s.keeps() {
				out.put(c.off+int64(at), c.data[at:end])
			}
			at = end
		}
	}
	return out
}

func (s *survey) keeps() bool { return s.rng.Float64() < s.share }

func (c *content) clone() content { return content{slices.Clone(c.bytes), c.size} }

func (c *content) resize(size int64) {
	if size < int64(len(c.bytes)) {
		c.bytes = c.bytes[:size]
	}
	c.size = size
}

func (c *content) put(off int64, data []byte) {
	end := off + int64(len(data))
	if more := end - int64(len(c.bytes)); more > 0 {
		c.bytes = append(c.bytes, make([]byte, more)...)
	}
	copy(c.bytes[off:], data)
	c.size = max(c.size, end)
}

// read fills p from off and returns how much there was.
func (c *content) read(p []byte, off int64) int {
	p = p[:max(0, min(int64(len(p)), c.size-off))]
	n := 0
	if off < int64(len(c.bytes)) {
		n = copy(p, c.bytes[off:])
	}
	clear(p[n:])
	return len(p)
}

func (n *node) change(c change) {
	if c.data == nil {
		n.now.resize(c.off)
	} else {
		n.now.put(c.off, c.data)
	}
	n.pending, n.time = append(n.pending, c), time.Now()
}

// commit makes the first so many of all changes durable; another sync that ran
// at the same time may have made more.
func (n *node) commit(changes int) {
	changes = max(0, changes-n.committed)
	for _, c := range n.pending[:changes] {
		if c.data == nil {
			n.durable.resize(c.off)
		} else {
			n.durable.put(c.off, c.data)
		}
	}
	n.pending, n.committed = slices.Clone(n.pending[changes:]), n.committed+changes
}

// set gives a name in a folder to a node, or takes it away.
func (n *node) set(name string, child *node) {
	if n.since[name] == nil {
		n.since[name] = []*node{n.names[name]}
	}
	n.since[name] = append(n.since[name], child)
	n.time = time.Now()
	if child == nil {
		delete(n.names, name)
	} else {
		n.names[name] = child
	}
}
