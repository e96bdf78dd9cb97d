// Package fleetkit runs a whole fleet of real processes on this machine - hub
// servers, edges, people with keys - for tests and for the bench. It uses what a
// bank uses: `holdfast fleet new` and enroll by their functions, holdfastd by its
// command line. All of it listens on loopback and ends with Close.
package fleetkit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Config of a fleet.
type Config struct {
	Dir, Tenant string
	Regions     []string // one or two
	Servers     int      // of each region: one or three
	// Daemon is the command that is holdfastd, Env what its environment has beside
	// this process's.
	Daemon, Env []string
	// Beside is another tenant's fleet, whose hub servers and NATS operator this
	// one shares: it has none of its own.
	Beside *Fleet
}

// A Fleet is people, hubs and edges. Its methods are not safe for concurrent use.
type Fleet struct {
	assembly.Layout
	cfg     Config
	Root    *bundle.TrustRoot
	Keys    map[string]*bundle.PrivateKey // by person
	Servers []assembly.ServerPlace
	// NoDomain says that the NATS servers are the user's, without a domain.
	NoDomain bool

	mu        sync.Mutex
	processes map[string]*Process
	newest    *bundle.SignedRelease
}

// The people of a fleet; the regions' heartbeat keys are called like them.
const (
	Root, Author, Approver, Enroller, Killer, Killer2 = "rosa", "ann", "bob", "eve", "kim", "kurt"
)

// New makes keys, the trust root and the fleet's folder; nothing runs yet.
func New(cfg Config) (*Fleet, error) {
	f := &Fleet{Layout: assembly.Layout{Dir: filepath.Join(cfg.Dir, "fleet")}, cfg: cfg, Keys: map[string]*bundle.PrivateKey{}, processes: map[string]*Process{}}
	people := map[string]bundle.Role{
		Root: bundle.RoleRoot, Author: bundle.RoleAuthor, Approver: bundle.RoleApprover, Enroller: bundle.RoleEnrol, Killer: bundle.RoleKill, Killer2: bundle.RoleKill,
	}
	for _, r := range cfg.Regions {
		people[r] = bundle.RoleHeartbeat
	}
	var public []bundle.Key
	heartbeats := map[string]string{}
	for person, role := range people {
		k, err := bundle.GenerateKey(role, person)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(cfg.Dir, person+".key")
		if err := k.WriteFile(path); err != nil {
			return nil, err
		}
		f.Keys[person] = k
		public = append(public, k.Key)
		if role == bundle.RoleHeartbeat {
			heartbeats[person] = path
		}
	}
	slices.SortFunc(public, func(a, b bundle.Key) int { return bytes.Compare(a.Public, b.Public) })
	f.Root = bundle.NewTrustRoot(cfg.Tenant, time.Now().Add(24*time.Hour), public...)
	envelope, err := bundle.SignTrustRoot(f.Root, f.Keys[Root])
	if err != nil {
		return nil, err
	}
	rootFile := filepath.Join(cfg.Dir, "root-1.dsse")
	if err := os.WriteFile(rootFile, envelope, 0o644); err != nil {
		return nil, err
	}
	if cfg.Beside != nil {
		f.Servers, err = cfg.Beside.Servers, f.share(cfg.Beside)
	} else {
		f.Servers, err = places(cfg)
	}
	if err != nil {
		return nil, err
	}
	return f, assembly.MakeFleet(assembly.NewFleet{
		Dir: f.Layout.Dir, Tenant: cfg.Tenant, TrustRoot: rootFile, Heartbeats: heartbeats, Servers: f.Servers,
	})
}

// share has the NATS operator and the certificate authority of another fleet be
// this one's too.
func (f *Fleet) share(with *Fleet) error {
	if err := os.MkdirAll(filepath.Dir(f.Authority()), 0o700); err != nil {
		return err
	}
	return errors.Join(os.Symlink(with.Authority(), f.Authority()), os.Symlink(with.CA(), f.CA()))
}

// places gives every server ports that are free at the moment.
func places(cfg Config) (out []assembly.ServerPlace, err error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	free := func() int {
		l, e := net.Listen("tcp", "127.0.0.1:0")
		if e != nil {
			err = errors.Join(err, e)
			return 0
		}
		held = append(held, l)
		return l.Addr().(*net.TCPAddr).Port
	}
	for _, r := range cfg.Regions {
		for i := range cfg.Servers {
			out = append(out, assembly.ServerPlace{
				Name: fmt.Sprintf("%s-%d", r, i+1), Region: r, Host: "127.0.0.1", Client: free(), Leaf: free(), Cluster: free(), Listen: free(),
			})
		}
	}
	return out, err
}

// A Process is a running holdfastd.
type Process struct {
	cmd    *exec.Cmd
	Words  string // what it said when it answered
	stderr *tail
	done   chan struct{}
}

// tail keeps the end of what a process says.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*tailBytes {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailBytes:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// Pid is the process's.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log is the end of what the process said on standard error.
func (p *Process) Log() string { return p.stderr.String() }

// Signal sends a signal and does not wait.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// End sends a signal and waits; it returns the exit code, -1 for a signal's end.
func (p *Process) End(s os.Signal) int {
	_ = p.cmd.Process.Signal(s) // it may have ended
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// startWithin bounds how long a daemon may take until it answers.
const startWithin = time.Minute

// start runs a daemon and returns when it says where it answers.
func (f *Fleet) start(name, role, config string) (*Process, error) {
	args := append(slices.Clone(f.cfg.Daemon[1:]), role, "--config", config)
	p := &Process{cmd: exec.Command(f.cfg.Daemon[0], args...), stderr: &tail{}, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), f.cfg.Env...)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	words := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n') // "" says that it ended
		words <- line
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	select {
	case p.Words = <-words:
	case <-time.After(startWithin):
		p.End(syscall.SIGKILL)
	}
	if p.Words == "" {
		<-p.done // then all that it said is there
		return nil, fmt.Errorf("%s did not start: %s", name, p.Log())
	}
	f.mu.Lock()
	f.processes[name] = p
	f.mu.Unlock()
	return p, nil
}

// Process is the one that was started last under a name.
func (f *Fleet) Process(name string) *Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.processes[name]
}

// StartHub starts one hub server.
func (f *Fleet) StartHub(server string) (*Process, error) {
	return f.start(server, "hub", filepath.Join(f.Hub(server), "hub.yaml"))
}

// StartHubs starts every hub server and returns when both regions can be used.
func (f *Fleet) StartHubs(ctx context.Context) error {
	errs := make([]error, len(f.Servers))
	var starting sync.WaitGroup
	for i, s := range f.Servers {
		starting.Go(func() { _, errs[i] = f.StartHub(s.Name) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for {
		admin, err := f.Admin(ctx)
		if err == nil {
			var s *assembly.State
			s, err = admin.Read(ctx)
			admin.Close()
			if err == nil && len(s.Unreachable) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Admin connects as the operator.
func (f *Fleet) Admin(ctx context.Context) (*assembly.Admin, error) {
	cfg, err := assembly.AdminOf(f.Layout)
	if err != nil {
		return nil, err
	}
	cfg.NoDomain = f.NoDomain
	return assembly.OpenAdmin(ctx, cfg)
}

// Enrol enrols a node, by its name and labels, and tells the hubs.
func (f *Fleet) Enrol(ctx context.Context, node, home string, labels map[string]string) error {
	envelope, _, err := assembly.EnrolNode(f.Layout, assembly.Enrol{
		Node: node, Labels: labels, Key: f.Keys[Enroller], Home: home, Listen: "127.0.0.1:0",
	})
	if err != nil {
		return err
	}
	admin, err := f.Admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	return admin.Enrol(ctx, envelope)
}

// StartEdge starts an edge that was enrolled and returns where it answers.
func (f *Fleet) StartEdge(node string) (url string, err error) {
	p, err := f.start(node, "edge", filepath.Join(f.Node(node), "edge.yaml"))
	if err != nil {
		return "", err
	}
	return p.URL()
}

var answersOn = regexp.MustCompile(`answers on (http://\S+)`)

// URL is where an edge answers.
func (p *Process) URL() (string, error) {
	m := answersOn.FindStringSubmatch(p.Words)
	if m == nil {
		return "", fmt.Errorf("no URL in %q", p.Words)
	}
	return m[1], nil
}

// A Policy is a built package at a point.
type Policy struct {
	Point  string
	Name   string
	File   []byte
	Params map[string]any
}

// Release makes and signs the release that follows the newest one that this
// fleet published. change may add to it before it is signed.
func (f *Fleet) Release(policies []Policy, change func(*bundle.Release)) ([]byte, *bundle.SignedRelease, error) {
	r := &bundle.Release{Tenant: f.cfg.Tenant, Epoch: 1, Fallback: bundle.FallbackNone, Created: time.Now().Unix()}
	if f.newest != nil {
		r.Epoch, r.Previous, r.Fallback = f.newest.Epoch+1, f.newest.Digest, bundle.FallbackPrevious
	}
	for _, p := range policies {
		content, err := wire.Decompress(p.File, bundle.MaxPackage)
		if err != nil {
			return nil, nil, err
		}
		ref := bundle.PackageRef{Name: p.Name, Digest: wire.Sum(content), Size: uint64(len(content)), Params: p.Params}
		i := slices.IndexFunc(r.Points, func(have bundle.Point) bool { return have.Name == p.Point })
		if i < 0 {
			r.Points = append(r.Points, bundle.Point{Name: p.Point, Durability: policy.Synced})
			i = len(r.Points) - 1
		}
		r.Points[i].Packages = append(r.Points[i].Packages, ref)
	}
	if change != nil {
		change(r)
	}
	envelope, err := bundle.SignRelease(r, f.Keys[Author], f.Keys[Approver])
	if err != nil {
		return nil, nil, err
	}
	s, err := f.Root.OpenRelease(envelope, time.Now())
	return envelope, s, err
}

// Publish signs and publishes a release with the policies.
func (f *Fleet) Publish(ctx context.Context, policies []Policy, change func(*bundle.Release)) (*bundle.SignedRelease, error) {
	envelope, s, err := f.Release(policies, change)
	if err != nil {
		return nil, err
	}
	admin, err := f.Admin(ctx)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	var files [][]byte
	for _, p := range policies {
		files = append(files, p.File)
	}
	if _, _, err := admin.Publish(ctx, envelope, files...); err != nil {
		return nil, err
	}
	f.WasPublished(s)
	return s, nil
}

// WasPublished says that a release of Release was published in another way: the
// next one follows it.
func (f *Fleet) WasPublished(s *bundle.SignedRelease) { f.newest = s }

// WaitView returns the first view that ok accepts.
func (f *Fleet) WaitView(ctx context.Context, ok func(*assembly.State) bool) error {
	admin, err := f.Admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	for {
		_, s, err := admin.View(ctx)
		if err == nil && ok(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil && s != nil {
				err = errors.New(s.View().InForce.Sentence())
			}
			return errors.Join(err, ctx.Err())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Close ends every process.
func (f *Fleet) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ending sync.WaitGroup
	for _, p := range f.processes {
		ending.Go(func() { p.End(syscall.SIGKILL) })
	}
	ending.Wait()
}
