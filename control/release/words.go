package release

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// expiry is an instant, or a time after the release is made.
func (r *reader) expiry(n *yamlfile.Node) error {
	rel := r.draft.Release
	if err := r.instant(n, &rel.Expires); err == nil {
		return nil
	}
	var d time.Duration
	if err := r.file.Duration(n, &d, time.Second, time.Second, 3660*24*time.Hour); err != nil {
		return r.file.Fail(n, "must be a time such as 2027-12-01T08:00:00Z, or how long from now such as 90d")
	}
	rel.Expires = rel.Created + int64(d/time.Second)
	return nil
}

func (r *reader) instant(n *yamlfile.Node, into *int64) error {
	var t time.Time
	err := r.file.Time(n, &t)
	*into = t.Unix()
	return err
}

func (r *reader) seconds(n *yamlfile.Node, into *int64, least int64) error {
	var d time.Duration
	err := r.file.Duration(n, &d, time.Second, time.Duration(least)*time.Second, bundle.MaxLease*time.Second)
	*into = int64(d / time.Second)
	return err
}

func (r *reader) digest(n *yamlfile.Node, into *wire.Digest) error {
	var word string
	if err := r.file.Text(n, &word); err != nil {
		return err
	}
	d, err := wire.ParseDigest(word)
	if err != nil {
		return r.file.Fail(n, "%v", err)
	}
	*into = d
	return nil
}

func (r *reader) checked(n *yamlfile.Node, into *string, check func(string) error) error {
	if err := r.file.Filled(n, into); err != nil {
		return err
	}
	if err := check(*into); err != nil {
		return r.file.Fail(n, "%v", err)
	}
	return nil
}

func (r *reader) word(n *yamlfile.Node, into *string, words ...string) error {
	if err := r.file.Text(n, into); err != nil {
		return err
	}
	if !slices.Contains(words, *into) {
		return r.file.Fail(n, "%q: want %s", *into, strings.Join(words, ", "))
	}
	return nil
}

func (r *reader) truth(n *yamlfile.Node, into *bool) error {
	if n = yamlfile.Resolve(n); n.Tag != "!!bool" || n.Decode(into) != nil {
		return r.file.Fail(n, "true or false")
	}
	return nil
}

func (r *reader) durability(n *yamlfile.Node, into *policy.Durability) error {
	const want = "written, synced, region or regions"
	if err := r.unmarshal(n, into, want); err != nil {
		return err
	}
	if *into == policy.NotRecorded {
		return r.file.Fail(n, "%q: want %s", yamlfile.Resolve(n).Value, want)
	}
	return nil
}

// unmarshal reads a word that its type knows how to read.
func (r *reader) unmarshal(n *yamlfile.Node, into interface{ UnmarshalText([]byte) error }, want string) error {
	var word string
	if err := r.file.Text(n, &word); err != nil {
		return err
	}
	if err := into.UnmarshalText([]byte(word)); err != nil {
		return r.file.Fail(n, "%q: want %s", word, want)
	}
	return nil
}
