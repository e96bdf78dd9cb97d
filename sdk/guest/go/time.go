package guest

// Second is a second in the units of Now and Time.
const Second int64 = 1_000_000_000

// Time returns an RFC 3339 date and time, a string, as nanoseconds since 1970,
// which Now can be compared with. It reports false for anything else: what ParseTime
// refuses, a value of another kind, an absent one.
func (v Value) Time() (int64, bool) { return ParseTime(v.Text()) }

// ParseTime reads RFC 3339 as all guest SDKs do: YYYY-MM-DD, T or t, HH:MM:SS, then
// optionally a point and 1 to 9 digits, then Z, z or an offset of at most 23:59. Years are 1970 to 2200, days as the month has them, and
// there is no leap second. The package time takes more, and a megabyte.
func ParseTime(s string) (nanoseconds int64, ok bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	year, month, day := digits(s[:4]), digits(s[5:7]), digits(s[8:10])
	hour, minute, second := digits(s[11:13]), digits(s[14:16]), digits(s[17:19])
	if year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || outside(hour, 23) || outside(minute, 59) || outside(second, 59) {
		return 0, false
	}
	fraction, zone, ok := parseFraction(s[19:])
	if !ok {
		return 0, false
	}
	offset, ok := parseOffset(zone)
	if !ok {
		return 0, false
	}
	minutes := int64((daysSince1970(year, month, day)*24+hour)*60+minute) - int64(offset)
	return (minutes*60+int64(second))*Second + fraction, true
}

// parseFraction reads the fraction of a second, none being 0, and returns the rest.
func parseFraction(s string) (nanoseconds int64, rest string, ok bool) {
	if s[0] != '.' {
		return 0, s, true
	}
	n := 1
	for ; n < len(s) && '0' <= s[n] && s[n] <= '9'; n++ {
		nanoseconds = nanoseconds*10 + int64(s[n]-'0')
		if n > 9 {
			return 0, "", false
		}
	}
	if n == 1 {
		return 0, "", false
	}
	for i := n; i <= 9; i++ {
		nanoseconds *= 10
	}
	return nanoseconds, s[n:], true
}

// parseOffset returns the minutes east of UTC.
func parseOffset(s string) (minutes int, ok bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	hour, minute := digits(s[1:3]), digits(s[4:])
	if outside(hour, 23) || outside(minute, 59) {
		return 0, false
	}
	minutes = hour*60 + minute
	if s[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}

func outside(n, most int) bool { return n < 0 || n > most }

// digits returns the number that s is, -1 when it has anything but digits.
func digits(s string) int {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if leap(year) {
			return 29
		}
		return 28
	}
	return 31
}

func leap(year int) bool { return year%4 == 0 && year%100 != 0 || year%400 == 0 }

// daysSince1970 counts days of the Gregorian calendar; leap years before y are
// those up to y-1.
func daysSince1970(year, month, day int) int {
	past := year - 1
	days := (year-1970)*365 + (past/4 - past/100 + past/400) - (1969/4 - 1969/100 + 1969/400)
	for m := 1; m < month; m++ {
		days += daysIn(year, m)
	}
	return days + day - 1
}
