package yamlfile

import (
	"math/big"
	"strconv"
	"strings"
	"time"
)

const million = 1_000_000

// Uint reads a whole number from least to most.
func (f *File) Uint(n *Node, into *uint64, least, most uint64) error {
	n = Resolve(n)
	u, err := strconv.ParseUint(n.Value, 10, 64)
	if n.Tag != "!!int" || err != nil || u < least || u > most {
		return f.Fail(n, "must be a whole number from %d to %d", least, most)
	}
	*into = u
	return nil
}

// Duration reads a time such as 90s, 4h, 1h30m or 7d, from least to most. One
// that is not whole in units is an error.
func (f *File) Duration(n *Node, into *time.Duration, unit, least, most time.Duration) error {
	n = Resolve(n)
	d, err := parseDuration(n.Value)
	if n.Tag != "!!str" || err != nil || d < least || d > most || d%unit != 0 {
		return f.Fail(n, "must be a time from %v to %v in steps of %v, such as 90s, 4h or 7d", least, most, unit)
	}
	*into = d
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// Share reads a percentage such as 1% or 0.05% as parts of a million, from 1 to all.
func (f *File) Share(n *Node, into *uint64) error {
	n = Resolve(n)
	number, percent := strings.CutSuffix(n.Value, "%")
	ok := percent && n.Tag == "!!str" && len(number) <= 10 && strings.Trim(number, "0123456789.") == ""
	r, read := new(big.Rat).SetString(number)
	if ok = ok && read; ok {
		r.Mul(r, big.NewRat(million/100, 1))
		ok = r.IsInt() && r.Sign() > 0 && r.Cmp(big.NewRat(million, 1)) <= 0
	}
	if !ok {
		return f.Fail(n, "must be a percentage above 0%%, at most 100%%, with up to four decimals, such as 1%% or 0.05%%")
	}
	*into = r.Num().Uint64()
	return nil
}

// Time reads an instant as RFC 3339 writes it, such as 2026-12-01T08:00:00Z.
func (f *File) Time(n *Node, into *time.Time) error {
	n = Resolve(n)
	t, err := time.Parse(time.RFC3339, n.Value)
	if n.Tag != "!!timestamp" && n.Tag != "!!str" || err != nil || t.Unix() <= 0 {
		return f.Fail(n, "must be a time such as 2026-12-01T08:00:00Z")
	}
	*into = t
	return nil
}

// Words reads a mapping of texts; it is never nil without an error.
func (f *File) Words(n *Node, into *map[string]string) error {
	words := map[string]string{}
	*into = words
	return f.Members(n, func(key, value *Node) error {
		var word string
		err := f.Text(value, &word)
		words[key.Value] = word
		return err
	})
}
