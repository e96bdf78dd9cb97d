package guest

import (
	"regexp"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"1970-01-01T00:00:00Z":                0,
		"1970-01-01t00:00:00+23:59":           -(23*60 + 59) * 60 * Second,
		"2026-01-01T00:00:00.000000001z":      1_767_225_600*Second + 1,
		"2026-01-01T00:00:00.25+05:30":        1_767_225_600*Second + Second/4 - 330*60*Second,
		"2000-02-29T23:59:59.999999999-23:59": 951_868_799*Second + Second - 1 + 1439*60*Second,
		"2200-12-31T23:59:59Z":                7_289_654_399 * Second,
	} {
		if got, ok := ParseTime(text); !ok || got != want {
			t.Errorf("%s: %d %t, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01T00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
		"2026-01-01T00:00:60Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-04-31T00:00:00Z", "2025-02-29T00:00:00Z",
		"2100-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.1234567890Z",
		"2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60", "2026-01-01T00:00:00+0000", "2026-01-01T00:00:00+00",
		"2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00Z ", " 2026-01-01T00:00:00Z", "2026-1-01T00:00:00.0Z", "+026-01-01T00:00:00Z", "2026-01-01T00:00:00.5",
		"2026-01-01T00:00:00~00:00", "2026\xad01-01T00:00:00Z", "2026-01-01T0:000:00Z", "2026-01-01\x5400:00:0\x00Z",
	} {
		if got, ok := ParseTime(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// slowTime is the obvious way: the shape by a regular expression, the rest by
// the package time.
func slowTime(text string) (int64, bool) {
	if !rfc3339.MatchString(text) {
		return 0, false
	}
	upper := []byte(text)
	for i, c := range upper {
		if c == 't' || c == 'z' {
			upper[i] = c - 'a' + 'A'
		}
	}
	at, err := time.Parse(time.RFC3339Nano, string(upper))
	if err != nil || at.Year() < 1970 || at.Year() > 2200 {
		return 0, false
	}
	return at.UnixNano(), true
}

func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"2026-01-01T00:00:00Z", "2024-02-29t23:59:59.123456789+23:59", "1970-01-01T00:00:00-00:00", "2200-12-31T23:59:59.9z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := ParseTime(text)
		want, wantOK := slowTime(text)
		if got != want || ok != wantOK {
			t.Errorf("%q: %d %t, want %d %t", text, got, ok, want, wantOK)
		}
	})
}

// TestEveryDay holds the calendar against the package time.
func TestEveryDay(t *testing.T) {
	for day := time.Unix(0, 0).UTC(); day.Year() <= 2200; day = day.AddDate(0, 0, 1) {
		text := day.Format(time.RFC3339)
		if got, ok := ParseTime(text); !ok || got != day.UnixNano() {
			t.Fatalf("%s: %d %t, want %d", text, got, ok, day.UnixNano())
		}
	}
}
