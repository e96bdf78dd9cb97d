package assembly

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
)

// EdgeJournal is what an edge keeps of what it has shipped.
type EdgeJournal struct {
	// Retention is how long records stay that the regions have; 0 means one hour.
	Retention time.Duration
	// Quota bounds the journal, in bytes; 0 means 20 GB with regions, and none
	// without, where nothing is ever given up.
	Quota int64
	// MinReceipts is how many regions must have counter-signed what is given up; 0
	// means 2, or all there are.
	MinReceipts int
}

const (
	defaultQuota = 20e9
	minQuota     = 256e6
	maxRetention = 3660 * 24 * time.Hour
)

func (c *EdgeConfig) quota() int64 {
	if len(c.Regions) == 0 {
		return c.Journal.Quota
	}
	return cmp.Or(c.Journal.Quota, defaultQuota)
}

// consistent refuses what cannot work with the regions that there are.
func (j *EdgeJournal) consistent(f *configFile, seen map[string]*yamlfile.Node, c *EdgeConfig) error {
	if len(c.Regions) == 0 {
		for _, key := range []string{"retention", "min_receipts"} {
			if n := seen[key]; n != nil {
				return &ConfigError{f.Fail(n, "an edge without regions gives up nothing: %s says nothing there", key)}
			}
		}
	}
	if len(c.Regions) > 0 && j.MinReceipts > len(c.Regions) {
		return &ConfigError{f.Fail(seen["min_receipts"], "%d receipts of %d regions: nothing would ever be given up", j.MinReceipts, len(c.Regions))}
	}
	return nil
}

// units of byteSize.
var units = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
}

// byteSize reads a number of bytes with its unit, such as 20GB or 512MiB.
func byteSize(into *int64, least int64) func(*configFile, *yamlfile.Node) error {
	return func(f *configFile, n *yamlfile.Node) error {
		var text string
		if err := f.Filled(n, &text); err != nil {
			return err
		}
		for _, u := range units {
			number, ok := strings.CutSuffix(text, u.name)
			if !ok {
				continue
			}
			number = strings.TrimSpace(number)
			v, err := strconv.ParseFloat(number, 64)
			if size := v * u.bytes; err == nil && strings.Trim(number, "0123456789.") == "" && size >= float64(least) && size < math.MaxInt64/2 {
				*into = int64(size)
				return nil
			}
			break
		}
		return f.Fail(n, "%q: want a size of at least %d MB, such as 20GB, 512MB or 2TiB", text, least/1e6)
	}
}
