package rego

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of an OPA bundle, uncompressed.
const (
	maxBundle = 32 << 20
	// maxEntries counts files and folders.
	maxEntries = 4_000
)

var errBundleSize = fmt.Errorf("more than %d bytes uncompressed", maxBundle)

// unpack reads a packed bundle whole, within its bounds, and believes nothing in
// it: neither sizes nor names.
func unpack(raw []byte) ([]bundleFile, error) {
	gz, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, archiveError(err)
	}
	bounded := &boundedReader{r: gz, left: maxBundle}
	u := unpacker{tar: tar.NewReader(bounded), seen: map[string]bool{}}
	for err == nil {
		err = u.next()
	}
	if !errors.Is(err, io.EOF) {
		return nil, archiveError(err)
	}
	// What follows the archive carries the checksum.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return nil, archiveError(err)
	}
	return u.files, nil
}

func archiveError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return fmt.Errorf("OPA bundle: %w", err)
}

type boundedReader struct {
	r    io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errBundleSize
	}
	n, err := b.r.Read(p[:min(len(p), b.left+1)])
	b.left -= n
	return n, err
}

type unpacker struct {
	tar     *tar.Reader
	seen    map[string]bool
	entries int
	files   []bundleFile
}

func (u *unpacker) next() error {
	h, err := u.tar.Next()
	if err != nil {
		return err
	}
	if u.entries++; u.entries > maxEntries {
		return fmt.Errorf("more than %d files", maxEntries)
	}
	name, err := entryName(h.Name)
	switch {
	case err != nil:
		return err
	case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("%.200q is neither a file nor a folder", h.Name)
	case u.seen[name]:
		return fmt.Errorf("%.200q twice", name)
	case h.Size > maxFileBytes:
		return fmt.Errorf("%.200q: %d bytes, at most %d", name, h.Size, maxFileBytes)
	}
	u.seen[name] = true
	content, err := io.ReadAll(u.tar)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	u.files = append(u.files, bundleFile{name, content})
	return err
}

// entryName returns the name without the slash that OPA begins it with.
func entryName(name string) (string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsAny(name, "\\\x00") {
		return "", fmt.Errorf("%.200q leads out of the bundle", name)
	}
	return clean, nil
}

// collect reads a bundle that is a folder, but for the files beside it.
func collect(fsys fs.FS, beside []string) (files []bundleFile, err error) {
	total := 0
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return hidden(name, d, err)
		}
		if !d.Type().IsRegular() || slices.Contains(beside, name) {
			return nil
		}
		raw, err := readFile(fsys, name)
		if total += len(raw); total > maxBundle {
			err = errBundleSize
		}
		if files = append(files, bundleFile{name, raw}); len(files) > maxEntries {
			err = fmt.Errorf("more than %d files", maxEntries)
		}
		return err
	})
	return files, err
}
