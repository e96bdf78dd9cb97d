package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxSweepBytes bounds a signed sweep, MaxSweepRanges its ranges.
const (
	MaxSweepBytes  = 1 << 20
	MaxSweepRanges = 4096
)

// A Sweep is a region's word on what its ledger deleted because it was old: a
// signed note, whose text is
//
//	holdfast/TENANT/region/REGION sweep
//	SERIAL
//	TIME
//	parts NODE BOOT FROM TO
//	records NODE BOOT FROM TO
//
// with as many of the last two kinds of lines as there are ranges.
type Sweep struct {
	Tenant, Region string
	// Serial rises with each sweep of the region.
	Serial uint64
	// Time is the region's clock, in nanoseconds since 1970.
	Time int64
	// Parts are records that lost their parts, Records those that are gone.
	Parts, Records []Records
}

const (
	sweepWord    = " sweep"
	partsWord    = "parts"
	recordsWord  = "records"
	sweepHeaders = 3
)

// Text is the sweep in its one form.
func (s *Sweep) Text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s%s\n%d\n%d\n", RegionKeyName(s.Tenant, s.Region), sweepWord, s.Serial, s.Time)
	for _, kind := range []struct {
		word    string
		records []Records
	}{{partsWord, s.Parts}, {recordsWord, s.Records}} {
		for _, r := range kind.records {
			for _, x := range r.Ranges {
				fmt.Fprintf(&out, "%s %s %s %d %d\n", kind.word, r.Node, r.Boot, x.From, x.To)
			}
		}
	}
	return out.String()
}

// Sign returns the sweep as a note signed by the region's key. One that OpenSweep
// would not read is an error.
func (s *Sweep) Sign(key note.Signer) ([]byte, error) {
	if _, err := parseSweep(s.Text()); err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: s.Text()}, key)
}

// OpenSweep verifies the signature of the region whose key is given, and that the
// sweep is that region's.
func OpenSweep(msg []byte, region note.Verifier) (*Sweep, error) {
	if len(msg) > MaxSweepBytes {
		return nil, fmt.Errorf("sweep of %d bytes; at most %d", len(msg), MaxSweepBytes)
	}
	n, err := note.Open(msg, note.VerifierList(region))
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	s, err := parseSweep(n.Text)
	if err != nil {
		return nil, err
	}
	if RegionKeyName(s.Tenant, s.Region) != region.Name() {
		return nil, fmt.Errorf("sweep of %s signed by %s", RegionKeyName(s.Tenant, s.Region), region.Name())
	}
	return s, nil
}

// PeekSweep reads a sweep without verifying it, to find out whose key is needed.
func PeekSweep(msg []byte) (*Sweep, error) {
	if len(msg) > MaxSweepBytes {
		return nil, fmt.Errorf("sweep of %d bytes; at most %d", len(msg), MaxSweepBytes)
	}
	i := strings.Index(string(msg), "\n\n")
	if i < 0 {
		return nil, errors.New("sweep without signatures")
	}
	return parseSweep(string(msg[:i+1]))
}

func parseSweep(text string) (*Sweep, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < sweepHeaders || len(lines) > sweepHeaders+MaxSweepRanges {
		return nil, fmt.Errorf("sweep of %d lines", len(lines))
	}
	name, ok := strings.CutSuffix(lines[0], sweepWord)
	parts := strings.Split(name, "/")
	if !ok || len(parts) != 4 || !ValidName(parts[1]) || !ValidName(parts[3]) || RegionKeyName(parts[1], parts[3]) != name {
		return nil, fmt.Errorf("sweep of %.200q", lines[0])
	}
	s := &Sweep{Tenant: parts[1], Region: parts[3]}
	var err error
	if s.Serial, err = strconv.ParseUint(lines[1], 10, 63); err != nil || s.Serial == 0 {
		return nil, fmt.Errorf("sweep with the serial %.40q", lines[1])
	}
	if s.Time, err = strconv.ParseInt(lines[2], 10, 64); err != nil {
		return nil, fmt.Errorf("sweep at %.40q", lines[2])
	}
	for _, line := range lines[sweepHeaders:] {
		if err := s.line(line); err != nil {
			return nil, err
		}
	}
	if s.Text() != text {
		return nil, errors.New("sweep is not in its one form")
	}
	return s, nil
}

func (s *Sweep) line(line string) error {
	f := strings.Split(line, " ")
	if len(f) != 5 || !ValidName(f[1]) {
		return fmt.Errorf("sweep with the line %.200q", line)
	}
	_, _, err := ParseBootID(f[2])
	from, err1 := strconv.ParseUint(f[3], 10, 63)
	to, err2 := strconv.ParseUint(f[4], 10, 63)
	if errors.Join(err, err1, err2) != nil || from == 0 || to < from {
		return fmt.Errorf("sweep with the line %.200q", line)
	}
	into := &s.Parts
	switch f[0] {
	case partsWord:
	case recordsWord:
		into = &s.Records
	default:
		return fmt.Errorf("sweep with the line %.200q", line)
	}
	if n := len(*into); n > 0 && (*into)[n-1].Node == f[1] && (*into)[n-1].Boot == f[2] {
		(*into)[n-1].Ranges = append((*into)[n-1].Ranges, Range{from, to})
		return nil
	}
	*into = append(*into, Records{f[1], f[2], []Range{{from, to}}})
	return nil
}
