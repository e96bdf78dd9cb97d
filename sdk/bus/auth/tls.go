package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Files of TLS: paths of PEM files.
type TLSFiles struct {
	// CA verifies the other side.
	CA string `json:"ca"`
	// Cert and Key are the server's own; "" for one that only connects.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// How long certificates of a laptop's own authority hold, and by how much they
// reach back for clocks that differ.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 825 * 24 * time.Hour
	backdate = time.Hour
)

// A CA is a certificate authority in a folder: ca.pem, and ca.key that only its
// owner reads. It is for laptops, tests and first steps; a bank brings its own
// files.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// LoadOrCreateCA opens the authority in dir, or makes one.
func LoadOrCreateCA(dir, name string) (*CA, error) {
	if _, err := os.Stat(filepath.Join(dir, "ca.pem")); err == nil {
		return loadCA(dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	template, err := certificate(name, caLife)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := writeCert(filepath.Join(dir, "ca.key"), filepath.Join(dir, "ca.pem"), template, template, key, key); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return loadCA(dir)
}

func loadCA(dir string) (*CA, error) {
	ca := &CA{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate", filepath.Join(dir, "ca.pem"))
	}
	if ca.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "ca.pem"), err)
	}
	text, err = os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if block, _ = pem.Decode(text); block == nil {
		return nil, fmt.Errorf("%s: no key", filepath.Join(dir, "ca.key"))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: no private key that signs", filepath.Join(dir, "ca.key"))
	}
	ca.key = signer
	return ca, nil
}

// CAFile is the authority's certificate.
func (ca *CA) CAFile() string { return filepath.Join(ca.dir, "ca.pem") }

// Server makes a certificate and key for a server that answers under these
// names and addresses, in dir, in the place of those which are there. It serves
// both ends of a route.
func (ca *CA) Server(dir, name string, hosts ...string) (TLSFiles, error) {
	if err := checkName("certificate", name); err != nil {
		return TLSFiles{}, err
	}
	if len(hosts) == 0 {
		return TLSFiles{}, fmt.Errorf("certificate %s: no host that it is for", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return TLSFiles{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return TLSFiles{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	template, err := certificate(name, certLife)
	if err != nil {
		return TLSFiles{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	files := TLSFiles{CA: ca.CAFile(), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
	if err := writeCert(files.Key, files.Cert, template, ca.cert, key, ca.key); err != nil {
		return TLSFiles{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	return files, nil
}

func certificate(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
	}, nil
}

// writeCert signs the certificate and writes it after its key.
func writeCert(keyPath, certPath string, template, parent *x509.Certificate, key, signer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		write(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
		write(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	)
}
