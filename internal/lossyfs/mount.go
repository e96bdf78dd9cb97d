//go:build linux

package lossyfs

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Available returns why nothing can be mounted here, or nil.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("only root may mount")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("this machine has no FUSE: %w", err)
	}
	return f.Close()
}

// Mount puts the disk's content at the folder dir, which must exist, until
// unmount is called. It fails where mounting is forbidden.
func (d *Disk) Mount(dir string) (unmount func() error, err error) {
	d.mu.Lock()
	root := &inode{disk: d, node: d.root, generation: d.generation}
	d.mu.Unlock()
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions:    fuse.MountOptions{DirectMountStrict: true, FsName: "lossyfs", Name: "lossyfs", Logger: log.New(io.Discard, "", 0)},
		RootStableAttr:  &fs.StableAttr{Ino: root.node.id},
		NullPermissions: true,
	})
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	return server.Unmount, nil
}

// An inode is a node as one mount shows it.
type inode struct {
	fs.Inode
	disk       *Disk
	node       *node
	name       string // when it was first seen
	generation int
}

var _ interface {
	fs.NodeLookuper
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeCreater
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
	fs.NodeAllocater
	fs.NodeStatfser
	fs.NodeMkdirer
	fs.NodeUnlinker
	fs.NodeRmdirer
	fs.NodeRenamer
	fs.NodeLinker
	fs.NodeSymlinker
	fs.NodeReadlinker
	fs.NodeReaddirer
} = (*inode)(nil)

// begin locks the disk for an operation, or says why it fails.
func (i *inode) begin(op, name string) syscall.Errno {
	i.disk.mu.Lock()
	errno := syscall.Errno(0)
	switch {
	case i.generation != i.disk.generation:
		errno = syscall.EIO
	case op != "" && i.disk.fault != nil:
		errno = i.disk.fault(op, name)
	}
	if errno != 0 {
		i.disk.mu.Unlock()
	}
	return errno
}

func (i *inode) end() { i.disk.mu.Unlock() }

// child is the inode of a node that has a name here.
func (i *inode) child(ctx context.Context, name string, n *node, out *fuse.EntryOut) *fs.Inode {
	n.attributes(&out.Attr)
	return i.NewInode(ctx, &inode{disk: i.disk, node: n, name: name, generation: i.generation}, fs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.id})
}

func (n *node) attributes(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.id, n.mode, 1
	out.Size, out.Blocks, out.Blksize = uint64(n.now.size), uint64(n.now.size+511)/512, 4096
	out.SetTimes(&n.time, &n.time, &n.time)
}

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := i.begin("", name); errno != 0 {
		return nil, errno
	}
	defer i.end()
	n := i.node.names[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return i.child(ctx, name, n, out), 0
}

func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := i.begin("", i.name); errno != 0 {
		return errno
	}
	defer i.end()
	i.node.attributes(&out.Attr)
	return 0
}

func (i *inode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	op := ""
	size, resize := in.GetSize()
	if resize {
		op = "size"
	}
	if errno := i.begin(op, i.name); errno != 0 {
		return errno
	}
	defer i.end()
	if resize {
		i.node.change(change{off: int64(size)})
	}
	if mode, ok := in.GetMode(); ok {
		i.node.mode = i.node.mode&syscall.S_IFMT | mode&0o7777
	}
	if at, ok := in.GetMTime(); ok {
		i.node.time = at
	}
	i.node.attributes(&out.Attr)
	return 0
}

// add makes a new node under a name that is free.
func (i *inode) add(ctx context.Context, name string, mode uint32, target string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := i.begin("create", name); errno != 0 {
		return nil, errno
	}
	defer i.end()
	if i.node.names[name] != nil {
		return nil, syscall.EEXIST
	}
	n := i.disk.newNode(mode)
	if n.target = target; target != "" {
		n.now.size = int64(len(target))
		n.durable = n.now
	}
	i.node.set(name, n)
	return i.child(ctx, name, n, out), 0
}

func (i *inode) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n, errno := i.add(ctx, name, syscall.S_IFREG|mode&0o7777, "", out)
	return n, nil, 0, errno
}

func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.add(ctx, name, syscall.S_IFDIR|mode&0o7777, "", out)
}

func (i *inode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.add(ctx, name, syscall.S_IFLNK|0o777, target, out)
}

func (i *inode) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(i.node.target), 0 }

func (i *inode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := i.begin("create", name); errno != 0 {
		return nil, errno
	}
	defer i.end()
	if i.node.names[name] != nil {
		return nil, syscall.EEXIST
	}
	n := target.(*inode).node
	i.node.set(name, n)
	return i.child(ctx, name, n, out), 0
}

func (i *inode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := i.begin("", i.name); errno != 0 {
		return nil, 0, errno
	}
	i.end()
	return nil, 0, 0
}

func (i *inode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := i.begin("", i.name); errno != 0 {
		return nil, errno
	}
	defer i.end()
	return fuse.ReadResultData(dest[:i.node.now.read(dest, off)]), 0
}

func (i *inode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := i.begin("write", i.name); errno != 0 {
		return 0, errno
	}
	defer i.end()
	i.node.change(change{off, slices.Clone(data)})
	return uint32(len(data)), 0
}

func (i *inode) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if errno := i.begin("size", i.name); errno != 0 {
		return errno
	}
	defer i.end()
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	if end := int64(off + size); end > i.node.now.size {
		i.node.change(change{off: end})
	}
	return 0
}

// Fsync makes durable what was written before it began, when it ends; of a
// folder, its names.
func (i *inode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if i.node.folder() {
		return i.syncNames()
	}
	if errno := i.begin("sync", i.name); errno != 0 {
		return errno
	}
	changes := i.node.committed + len(i.node.pending)
	i.end()
	time.Sleep(i.disk.latency)
	if errno := i.begin("", i.name); errno != 0 {
		return errno
	}
	defer i.end()
	i.node.commit(changes)
	return 0
}

func (i *inode) syncNames() syscall.Errno {
	if errno := i.begin("syncdir", i.name); errno != 0 {
		return errno
	}
	defer i.end()
	clear(i.node.since)
	return 0
}

func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 1 << 24 // 64 GiB
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = blocks, blocks, blocks, blocks, blocks
	return 0
}

func (i *inode) Unlink(_ context.Context, name string) syscall.Errno { return i.remove(name) }

func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno { return i.remove(name) }

func (i *inode) remove(name string) syscall.Errno {
	if errno := i.begin("", name); errno != 0 {
		return errno
	}
	defer i.end()
	switch n := i.node.names[name]; {
	case n == nil:
		return syscall.ENOENT
	case len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	i.node.set(name, nil)
	return 0
}

// Rename changes two names, each of which a loss of power keeps or not.
func (i *inode) Rename(_ context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	if errno := i.begin("create", to); errno != 0 {
		return errno
	}
	defer i.end()
	n, into := i.node.names[name], parent.(*inode).node
	switch old := into.names[to]; {
	case n == nil:
		return syscall.ENOENT
	case flags != 0:
		return syscall.EINVAL
	case old != nil && len(old.names) > 0:
		return syscall.ENOTEMPTY
	case old == n:
		return 0
	}
	into.set(to, n)
	i.node.set(name, nil)
	return 0
}

func (i *inode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	if errno := i.begin("", i.name); errno != 0 {
		return nil, errno
	}
	defer i.end()
	var entries []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(i.node.names)) {
		n := i.node.names[name]
		entries = append(entries, fuse.DirEntry{Name: name, Mode: n.mode & syscall.S_IFMT, Ino: n.id})
	}
	return fs.NewListDirStream(entries), 0
}
