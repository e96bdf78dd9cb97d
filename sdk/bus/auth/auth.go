// Package auth says who may do what on Holdfast's NATS servers: decentralised
// JWT authentication with an operator, a system account and one account per
// tenant, the exact permissions of each kind of user, and the certificates of a
// laptop's own authority.
//
// An Authority is a folder that only its owner reads. Servers need none of its
// keys: they get a Trust, which is public.
package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// MaxPayload bounds one message of any user, in bytes.
const MaxPayload = 1 << 20

// systemName is the file name of the system account.
const systemName = "system"

var (
	// ErrNoTenant means that the authority has no such tenant.
	ErrNoTenant = errors.New("no such tenant")
	// ErrExists means that there is one already.
	ErrExists = errors.New("exists already")
)

// Limits bound a tenant's account; zero members are the defaults.
type Limits struct {
	// Disk is what its streams may hold in a region, in bytes and counting every
	// replica; 16 GiB by default.
	Disk int64
	// Leafs and Clients bound its connections to each region; 2,000 and 1,000 by default.
	Leafs, Clients int64
}

// An Authority signs accounts and users. Its folder holds every key, each
// readable only by its owner; no other file and no error holds one.
type Authority struct {
	dir     string
	signing nkeys.KeyPair // signs accounts, so that the operator's own key can be put away
}

// A Trust is what servers must know: public, and enough to verify every user.
type Trust struct {
	// Operator is the operator's JWT.
	Operator string `json:"operator"`
	// System is the public key of the system account.
	System string `json:"system"`
	// Accounts are the JWTs of the system account and of every tenant's.
	Accounts []string `json:"accounts"`
}

// Credentials of one user.
type Credentials struct {
	// User is the public key, by which the user is revoked.
	User string
	// File is the content of a credentials file. It is secret.
	File []byte
}

// String keeps credentials out of logs.
func (c Credentials) String() string { return "credentials of " + c.User }

// GoString keeps credentials out of logs.
func (c Credentials) GoString() string { return c.String() }

// Create makes a new authority in dir, which must not have one; ErrExists.
func Create(dir, name string) (*Authority, error) {
	if err := os.MkdirAll(filepath.Join(dir, "accounts"), 0o700); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "operator.jwt")); err == nil {
		return nil, fmt.Errorf("authority %s: %w", dir, ErrExists)
	}
	operator, err := newKey(filepath.Join(dir, "operator.key"), nkeys.CreateOperator)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir}
	if a.signing, err = newKey(filepath.Join(dir, "operator-signing.key"), nkeys.CreateOperator); err != nil {
		return nil, err
	}
	system, err := a.createAccount(systemName, func(c *jwt.AccountClaims) {})
	if err != nil {
		return nil, err
	}
	claims := jwt.NewOperatorClaims(public(operator))
	claims.Name, claims.SystemAccount = name, system
	claims.SigningKeys.Add(public(a.signing))
	token, err := claims.Encode(operator)
	if err != nil {
		return nil, fmt.Errorf("operator %s: %w", name, err)
	}
	return a, write(filepath.Join(dir, "operator.jwt"), []byte(token)) // the last file: without it there is no authority
}

// Open reads the authority in dir; an error for which errors.Is(err,
// fs.ErrNotExist) holds means that there is none.
func Open(dir string) (*Authority, error) {
	if _, err := os.Stat(filepath.Join(dir, "operator.jwt")); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	signing, err := readKey(filepath.Join(dir, "operator-signing.key"))
	if err != nil {
		return nil, err
	}
	return &Authority{dir: dir, signing: signing}, nil
}

// AddTenant makes a tenant's account; ErrExists when there is one.
func (a *Authority) AddTenant(tenant string, l Limits) error {
	if err := checkName("tenant", tenant); err != nil {
		return err
	}
	if tenant == systemName {
		return fmt.Errorf("tenant %q: the system account has this name", tenant)
	}
	if _, err := os.Stat(a.account(tenant, ".jwt")); err == nil {
		return fmt.Errorf("tenant %s: %w", tenant, ErrExists)
	}
	_, err := a.createAccount(tenant, func(c *jwt.AccountClaims) {
		c.Limits.LeafNodeConn = orDefault(l.Leafs, 2000)
		c.Limits.Conn = orDefault(l.Clients, 1000) + c.Limits.LeafNodeConn // a leaf counts as both
		c.Limits.Payload = MaxPayload
		c.Limits.Imports, c.Limits.Exports, c.Limits.WildcardExports = 0, 0, false
		c.Limits.DisallowBearer = true
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{
			DiskStorage: orDefault(l.Disk, 16<<30), Streams: 16, Consumer: 64, MaxAckPending: 1000,
		}
	})
	return err
}

// createAccount makes an account's keys and its JWT, and returns its public key.
func (a *Authority) createAccount(name string, limit func(*jwt.AccountClaims)) (string, error) {
	account, err := newKey(a.account(name, ".key"), nkeys.CreateAccount)
	if err != nil {
		return "", err
	}
	signing, err := newKey(a.account(name, "-signing.key"), nkeys.CreateAccount)
	if err != nil {
		return "", err
	}
	claims := jwt.NewAccountClaims(public(account))
	claims.Name = name
	claims.SigningKeys.Add(public(signing))
	limit(claims)
	_, err = a.sign(name, claims)
	return claims.Subject, err
}

// sign keeps and returns the account's JWT.
func (a *Authority) sign(name string, claims *jwt.AccountClaims) (string, error) {
	problems := jwt.CreateValidationResults()
	claims.Validate(problems)
	if errs := problems.Errors(); len(errs) > 0 {
		return "", fmt.Errorf("account %s: %w", name, errors.Join(errs...))
	}
	token, err := claims.Encode(a.signing)
	if err != nil {
		return "", fmt.Errorf("account %s: %w", name, err)
	}
	return token, write(a.account(name, ".jwt"), []byte(token))
}

// Tenants are the tenants' names, sorted.
func (a *Authority) Tenants() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(a.dir, "accounts"))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".jwt"); ok && name != systemName {
			names = append(names, name)
		}
	}
	return names, nil
}

// AccountJWT is the tenant's account as it was signed last. It is public.
func (a *Authority) AccountJWT(tenant string) (string, error) {
	if err := checkName("tenant", tenant); err != nil {
		return "", err
	}
	token, err := os.ReadFile(a.account(tenant, ".jwt"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("tenant %s: %w", tenant, ErrNoTenant)
	}
	return string(token), err
}

// Trust is what servers must know of the authority.
func (a *Authority) Trust() (*Trust, error) {
	operator, err := os.ReadFile(filepath.Join(a.dir, "operator.jwt"))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	t := &Trust{Operator: string(operator)}
	names, err := a.Tenants()
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{systemName}, names...) {
		token, err := a.AccountJWT(name)
		if err != nil {
			return nil, err
		}
		claims, err := jwt.DecodeAccountClaims(token)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
		if name == systemName {
			t.System = claims.Subject
		}
		t.Accounts = append(t.Accounts, token)
	}
	return t, nil
}

// Issue makes a user of the tenant. Life bounds how long the credentials hold;
// 0 for ever.
func (a *Authority) Issue(tenant, name string, p Permissions, life time.Duration) (Credentials, error) {
	if _, err := a.AccountJWT(tenant); err != nil {
		return Credentials{}, err
	}
	if err := p.check(); err != nil {
		return Credentials{}, fmt.Errorf("user %s of %s: %w", name, tenant, err)
	}
	return a.issue(tenant, name, life, func(c *jwt.UserClaims) {
		c.Permissions.Pub.Allow, c.Permissions.Sub.Allow = p.PublishSubjects(), p.SubscribeSubjects()
		c.AllowedConnectionTypes = p.Connections
		c.Limits.Payload = MaxPayload
		if p.Subscriptions > 0 {
			c.Limits.Subs = p.Subscriptions
		}
	})
}

// IssueSystem makes a user of the system account who may do one thing: hand an
// account's JWT to the servers.
func (a *Authority) IssueSystem(name string, life time.Duration) (Credentials, error) {
	return a.issue(systemName, name, life, func(c *jwt.UserClaims) {
		c.Permissions.Pub.Allow = []string{updateSubject}
		c.Permissions.Sub.Allow = []string{inbox("system", name) + ".>"}
		c.AllowedConnectionTypes = []string{byClient, inProcess}
	})
}

// updateSubject takes an account's JWT on the system account.
const updateSubject = "$SYS.REQ.CLAIMS.UPDATE"

func (a *Authority) issue(account, name string, life time.Duration, allow func(*jwt.UserClaims)) (Credentials, error) {
	if err := checkName("user", name); err != nil {
		return Credentials{}, err
	}
	signing, err := readKey(a.account(account, "-signing.key"))
	if err != nil {
		return Credentials{}, err
	}
	id, err := readKey(a.account(account, ".key"))
	if err != nil {
		return Credentials{}, err
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	claims := jwt.NewUserClaims(public(user))
	claims.Name, claims.IssuerAccount = name, public(id)
	if life > 0 {
		claims.Expires = time.Now().Add(life).Unix()
	}
	allow(claims)
	token, err := claims.Encode(signing)
	if err != nil {
		return Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	seed, err := user.Seed()
	if err != nil {
		return Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	return Credentials{User: claims.Subject, File: file}, nil
}

// Revoke takes the user out of the tenant's account and returns the account's
// new JWT, which the servers of every region must be given: a server that has
// it throws the user out at once and lets it in no more, also after a restart.
func (a *Authority) Revoke(tenant, user string) (string, error) {
	if !nkeys.IsValidPublicUserKey(user) {
		return "", fmt.Errorf("revoke %.80q: not the public key of a user", user)
	}
	token, err := a.AccountJWT(tenant)
	if err != nil {
		return "", err
	}
	claims, err := jwt.DecodeAccountClaims(token)
	if err != nil {
		return "", fmt.Errorf("account %s: %w", tenant, err)
	}
	// Servers keep the JWT with the later second of issue: two must not share one.
	time.Sleep(time.Until(time.Unix(claims.IssuedAt+1, 0)))
	claims.Revoke(user)
	return a.sign(tenant, claims)
}

func (a *Authority) account(name, suffix string) string {
	return filepath.Join(a.dir, "accounts", name+suffix)
}

// Inbox is where the answers to a user's questions go, by the permissions in its
// own credentials file; "" when they name no inbox.
func Inbox(creds []byte) (string, error) {
	token, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return "", errors.New("credentials file has no JWT") // the parser's words may quote the file
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return "", errors.New("credentials file has no valid user JWT")
	}
	for _, s := range claims.Permissions.Sub.Allow {
		if box, ok := strings.CutSuffix(s, ".>"); ok && strings.HasPrefix(box, "_INBOX.") {
			return box, nil
		}
	}
	return "", nil
}

// User is the public key of the user whose credentials file it is.
func User(creds []byte) (string, error) {
	token, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return "", errors.New("credentials file has no JWT") // the parser's words may quote the file
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return "", errors.New("credentials file has no valid user JWT")
	}
	return claims.Subject, nil
}

// AccountOf returns the name and public key of an account by its JWT, and
// whether the operator in t, or a key that it names, signed it.
func (t *Trust) AccountOf(token string) (name, key string, err error) {
	operator, err := jwt.DecodeOperatorClaims(t.Operator)
	if err != nil {
		return "", "", fmt.Errorf("operator JWT: %w", err)
	}
	claims, err := jwt.DecodeAccountClaims(token)
	if err != nil {
		return "", "", fmt.Errorf("account JWT: %w", err)
	}
	if !operator.DidSign(claims) {
		return "", "", fmt.Errorf("account JWT of %.80q: not signed by operator %s", claims.Name, operator.Name)
	}
	return claims.Name, claims.Subject, nil
}

// Account returns the public key of a tenant's account, or ErrNoTenant.
func (t *Trust) Account(tenant string) (string, error) {
	for _, token := range t.Accounts {
		name, key, err := t.AccountOf(token)
		if err != nil {
			return "", err
		}
		if name == tenant && key != t.System {
			return key, nil
		}
	}
	return "", fmt.Errorf("tenant %s: %w", tenant, ErrNoTenant)
}

// Tenants returns the public key of each tenant's account.
func (t *Trust) Tenants() (map[string]string, error) {
	out := map[string]string{}
	for _, token := range t.Accounts {
		name, key, err := t.AccountOf(token)
		if err != nil {
			return nil, err
		}
		if key != t.System {
			out[name] = key
		}
	}
	return out, nil
}

// check refuses lists with which a server would allow everything, and names
// that would widen a subject.
func (p Permissions) check() error {
	if len(p.Publish) == 0 || len(p.Subscribe) == 0 {
		return errors.New("an empty list of permissions allows everything")
	}
	for _, line := range slices.Concat(p.Publish, p.Subscribe) {
		if line.Reason == "" {
			return fmt.Errorf("permission %q has no reason", line.Subject)
		}
		tokens := strings.Split(line.Subject, ".")
		for i, tok := range tokens {
			wild := tok == "*" || tok == ">" && i == len(tokens)-1
			if !wild && (tok == "" || strings.ContainsAny(tok, "*> \t\r\n")) || i == 0 && wild {
				return fmt.Errorf("permission %q is no subject that may be allowed", line.Subject)
			}
		}
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len(name) > 128 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return fmt.Errorf("%s %.140q: letters, digits, - and _, 1 to 128 of them", what, name)
	}
	return nil
}

func orDefault(v, d int64) int64 {
	if v == 0 {
		return d
	}
	return v
}

// ServerConfig is the part of a nats-server's configuration file that makes it
// trust the operator, for servers that the user runs. Accounts are kept in dir,
// which must survive restarts: it holds the revocations.
func (t *Trust) ServerConfig(dir string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "operator: %s\nsystem_account: %s\n", t.Operator, t.System)
	fmt.Fprintf(&b, "resolver: { type: full, dir: %q, allow_delete: false, interval: \"1m\" }\nresolver_preload: {\n", dir)
	for _, token := range t.Accounts {
		_, key, err := t.AccountOf(token)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  %s: %s\n", key, token)
	}
	b.WriteString("}\n")
	return b.String(), nil
}
