// RFC 3339 as every SDK of Holdfast reads it: years 1970 to 2200, up to nine
// digits of a second, an offset within a day.

static int number_of(const uint8_t *p, int n, int *v) {
    *v = 0;
    while (n-- > 0) {
        if (*p < '0' || *p > '9')
            return 0;
        *v = *v * 10 + (*p++ - '0');
    }
    return 1;
}

static int days_of(int year, int month) {
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

// days_since returns the days from 1970-01-01 to a day.
static int64_t days_since(int year, int month, int day) {
    int64_t days = 365 * (int64_t)(year - 1970) + (year - 1969) / 4 - (year - 1901) / 100 + (year - 1601) / 400;
    for (int m = 1; m < month; m++)
        days += days_of(year, m);
    return days + day - 1;
}

static int offset_of(const uint8_t *p, uint32_t n, int64_t *seconds) {
    int hours, minutes;
    *seconds = 0;
    if (n == 1)
        return *p == 'Z' || *p == 'z';
    if (n != 6 || (*p != '+' && *p != '-') || p[3] != ':' || !number_of(p + 1, 2, &hours) || !number_of(p + 4, 2, &minutes) || hours > 23 || minutes > 59)
        return 0;
    *seconds = (hours * 60 + minutes) * (*p == '-' ? -60 : 60);
    return 1;
}

// instant_of reads a text of n bytes as nanoseconds since 1970.
static int instant_of(const uint8_t *p, uint32_t n, int64_t *ns) {
    int year, month, day, hour, minute, second;
    int64_t offset, fraction = 0, unit = 1000000000;
    if (n < 20 || !number_of(p, 4, &year) || p[4] != '-' || !number_of(p + 5, 2, &month) || p[7] != '-' || !number_of(p + 8, 2, &day) ||
        (p[10] != 'T' && p[10] != 't') || !number_of(p + 11, 2, &hour) || p[13] != ':' || !number_of(p + 14, 2, &minute) || p[16] != ':' || !number_of(p + 17, 2, &second))
        return 0;
    if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 59)
        return 0;
    uint32_t i = 19;
    if (p[i] == '.')
        for (i++; i < n && i < 29 && p[i] >= '0' && p[i] <= '9'; i++)
            fraction += (p[i] - '0') * (unit /= 10);
    if (i == 20 || i >= n || !offset_of(p + i, n - i, &offset))
        return 0;
    *ns = ((days_since(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset;
    *ns = *ns * 1000000000 + fraction;
    return 1;
}
