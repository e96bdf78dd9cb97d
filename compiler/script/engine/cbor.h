// CBOR to values of JavaScript. Maps become objects without a prototype, so that
// a name like "constructor" finds nothing; integers within 2^53 numbers, beyond
// it BigInts. What is large becomes a value when it is first read.

#define MAX_DEPTH 40
#define LAZY_INPUT 2048 // an input of at most so many bytes is read at once
#define LAZY_ITEM 256   // an item of at most so many bytes is

struct item {
    uint32_t major;
    uint64_t argument;
    uint32_t info;
};

static const uint8_t *input_begin, *input_end; // of the document that is read now
static int lazy;                 // its large items may wait
static const char *wrong;        // what is wrong with it

// Whole numbers from 2^31 to 2^53 that came: as an integer, as a float, or both.
// A number does not say which; a smaller one does, by its tag.
#define CAME_INTEGER 1
#define CAME_FLOAT 2
#define WHOLE_NUMBERS 64
static struct { double number; uint32_t came; } whole[WHOLE_NUMBERS];
static uint32_t whole_count;

static int ambiguous(double d) {
    double size = d < 0 ? -d : d;
    return size >= 2147483648.0 && size <= 9007199254740991.0 && d == (double)(int64_t)d;
}

static void note_whole(double d, uint32_t as) {
    uint32_t i = 0;
    while (i < whole_count && whole[i].number != d)
        i++;
    if (i == WHOLE_NUMBERS)
        return;
    if (i == whole_count)
        whole[whole_count++].number = d;
    whole[i].came |= as;
}

// came_as_float tells whether an ambiguous number came as a float and no other way.
static int came_as_float(double d) {
    for (uint32_t i = 0; i < whole_count; i++)
        if (whole[i].number == d)
            return whole[i].came == CAME_FLOAT;
    return 0;
}

static const uint8_t *malformed(const char *what) {
    wrong = what;
    return NULL;
}

// head reads an item's first bytes and returns what follows, NULL when malformed.
static inline const uint8_t *head(const uint8_t *p, struct item *it) {
    if (p >= input_end)
        return malformed("it ends too early");
    uint32_t first = *p++;
    it->major = first >> 5;
    it->info = first & 31;
    it->argument = it->info;
    if (it->info < 24)
        return p;
    if (it->info > 27)
        return malformed("an indefinite length");
    uint32_t size = 1u << (it->info - 24);
    if ((uint32_t)(input_end - p) < size)
        return malformed("it ends too early");
    uint64_t v = 0;
    for (uint32_t i = 0; i < size; i++)
        v = v << 8 | p[i];
    it->argument = v;
    return p + size;
}

// small tells whether an item's first byte is all of it: a small integer, false,
// true or null.
static inline int small(uint32_t first) { return (first & 0xc0) == 0 ? (first & 31) < 24 : first - 0xf4 < 3; }

// skip returns what follows an item.
static const uint8_t *skip(const uint8_t *p) {
    const uint8_t *end = input_end;
    uint64_t left = 1;
    struct item it;
    while (left > 0) {
        left--;
        if (p < end && small(*p)) {
            p++;
            continue;
        }
        if (!(p = head(p, &it)))
            return NULL;
        if (it.major >= 3 && it.major <= 5 && it.argument > (uint64_t)(input_end - p))
            return malformed("it is longer than the input");
        if (it.major == 3)
            p += it.argument;
        else if (it.major == 4)
            left += it.argument;
        else if (it.major == 5)
            left += 2 * it.argument;
    }
    return p;
}

static double half(uint32_t h) {
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
    double d;
    if (exponent == 0)
        d = ldexp(fraction, -24);
    else if (exponent == 31)
        d = fraction ? NAN : INFINITY;
    else
        d = ldexp(fraction + 1024, (int)exponent - 25);
    return h & 0x8000 ? -d : d;
}

static int float_of(const struct item *it, double *d) {
    union { uint64_t u; double d; uint32_t w[2]; float f[2]; } bits;
    bits.u = it->argument;
    if (it->info == 25)
        *d = half((uint32_t)it->argument);
    else if (it->info == 26)
        *d = bits.f[0];
    else
        *d = bits.d;
    return isfinite(*d);
}

static JSValue refuse(JSContext *ctx, const char *what) {
    wrong = what;
    return JS_EXCEPTION;
}

// ascii_length returns how many bytes at the beginning are ASCII.
static uint32_t ascii_length(const uint8_t *p, uint32_t n) {
    const uint64_t high = 0x8080808080808080ull;
    uint64_t w[4];
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        memcpy(w, p + i, 32);
        if ((w[0] | w[1] | w[2] | w[3]) & high)
            break;
    }
    for (; i + 8 <= n; i += 8) {
        memcpy(w, p + i, 8);
        if (w[0] & high)
            break;
    }
    while (i < n && p[i] < 0x80)
        i++;
    return i;
}

// code_point reads one of UTF-8 that is not ASCII, and returns what follows, NULL
// when it is none. It loads once, because loads are dear in a large memory.
static inline __attribute__((always_inline)) const uint8_t *code_point(const uint8_t *p, const uint8_t *end, uint32_t *c) {
    uint32_t w = 0, v;
    if (end - p >= 4)
        memcpy(&w, p, 4);
    else
        for (uint32_t i = 0; i < end - p; i++)
            w |= (uint32_t)p[i] << (8 * i);
    if ((w & 0xc0e0) == 0x80c0) {
        *c = v = (w & 31) << 6 | (w >> 8 & 63);
        return v < 0x80 ? NULL : p + 2;
    }
    if ((w & 0xc0c0f0) == 0x8080e0) {
        *c = v = (w & 15) << 12 | (w >> 2 & 0xfc0) | (w >> 16 & 63);
        return v < 0x800 || (v >= 0xd800 && v < 0xe000) ? NULL : p + 3;
    }
    *c = v = (w & 7) << 18 | (w << 4 & 0x3f000) | (w >> 10 & 0xfc0) | (w >> 24 & 63);
    return (w & 0xc0c0c0f8) != 0x808080f0 || v < 0x10000 || v > 0x10ffff ? NULL : p + 4;
}

// units returns how many a text of UTF-8 is in UTF-16, and whether one of them does
// not fit in a byte. What is no UTF-8 gives any number.
static uint32_t units(const uint8_t *p, uint32_t n, int *wide) {
    const uint64_t high = 0x8080808080808080ull;
    uint64_t large = 0, x;
    uint32_t count = n;
    while (n > 0) {
        uint32_t some = n < 8 ? n : 8;
        x = 0;
        memcpy(&x, p, 8 <= n ? 8 : n);
        uint64_t lead = x & x << 1 & high;
        count -= (uint32_t)__builtin_popcountll(x & ~(x << 1) & high);
        count += (uint32_t)__builtin_popcountll(lead & x << 2 & x << 3);
        large |= lead & (x << 2 | x << 3 | x << 4 | x << 5);
        p += some;
        n -= some;
    }
    *wide = large != 0;
    return count;
}

// fill writes a text of UTF-8 into a string that has room for its units, and
// returns how many they are, -1 when it is no UTF-8.
static int64_t fill(JSString *s, const uint8_t *p, const uint8_t *end, int wide, uint32_t most) {
    uint32_t i = 0, c;
    uint64_t eight;
    while (p < end && i < most) {
        c = *p;
        if (c < 0x80 && end - p >= 8 && most - i >= 8 && (memcpy(&eight, p, 8), (eight & 0x8080808080808080ull) == 0)) {
            if (!wide)
                memcpy(s->u.str8 + i, &eight, 8);
            for (int k = 0; wide && k < 8; k++)
                s->u.str16[i + k] = eight >> (8 * k) & 0xff;
            i += 8;
            p += 8;
            continue;
        }
        if (c < 0x80)
            p++;
        else if (!(p = code_point(p, end, &c)))
            return -1;
        if (!wide)
            s->u.str8[i++] = c;
        else if (c <= 0xffff)
            s->u.str16[i++] = c;
        else if (most - i < 2)
            return -1;
        else {
            s->u.str16[i++] = get_hi_surrogate(c);
            s->u.str16[i++] = get_lo_surrogate(c);
        }
    }
    return p < end ? -1 : i;
}

static JSValue wide_text(JSContext *ctx, const uint8_t *p, uint32_t n) {
    int wide;
    uint32_t count = units(p, n, &wide);
    JSString *s = js_alloc_string(ctx, count, wide);
    if (!s)
        return JS_EXCEPTION;
    if (fill(s, p, p + n, wide, count) != count)
        return refuse(ctx, "a text that is not UTF-8");
    if (!wide)
        s->u.str8[count] = 0;
    return JS_MKPTR(JS_TAG_STRING, s);
}

static JSValue text_value(JSContext *ctx, const uint8_t *p, uint32_t n) {
    if (ascii_length(p, n) < n)
        return wide_text(ctx, p, n);
    JSString *s = js_alloc_string(ctx, n, 0);
    if (!s)
        return JS_EXCEPTION;
    memcpy(s->u.str8, p, n);
    s->u.str8[n] = 0;
    return JS_MKPTR(JS_TAG_STRING, s);
}

static JSAtom key_atom(JSContext *ctx, const uint8_t *p, uint32_t n) {
    if (ascii_length(p, n) == n)
        return JS_NewAtomLen(ctx, (const char *)p, n);
    JSValue name = wide_text(ctx, p, n);
    return JS_IsException(name) ? JS_ATOM_NULL : JS_NewAtomStr(ctx, JS_VALUE_GET_STRING(name));
}

static const uint8_t *read_value(JSContext *ctx, const uint8_t *p, int depth, JSValue *v);

static const uint8_t *read_list(JSContext *ctx, const uint8_t *p, uint64_t count, int depth, JSValue *v) {
    if (depth > MAX_DEPTH)
        return malformed("it nests too deep");
    if (count > (uint64_t)(input_end - p))
        return malformed("it is longer than the input");
    *v = JS_NewArray(ctx);
    if (JS_IsException(*v))
        return NULL;
    JSObject *o = JS_VALUE_GET_OBJ(*v);
    if (count > 0 && expand_fast_array(ctx, o, (uint32_t)count))
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        JSValue *item = &o->u.array.u.values[i];
        if (p < input_end && *p < 24)
            *item = JS_NewInt32(ctx, *p++);
        else if (!(p = read_value(ctx, p, depth + 1, item)))
            return NULL;
    }
    o->u.array.count = (uint32_t)count;
    o->prop[0].u.value = JS_NewInt32(ctx, (int32_t)count);
    return p;
}

// leave makes a member that waits for being read.
static int leave(JSContext *ctx, const uint8_t *p, JSObject *o, JSAtom name) {
    JSProperty *pr = add_property(ctx, o, name, JS_PROP_C_W_E | JS_PROP_AUTOINIT);
    if (!pr)
        return -1;
    pr->u.init.realm_and_id = (uintptr_t)JS_DupContext(ctx) | 3;
    pr->u.init.opaque = (void *)p;
    return 0;
}

static const uint8_t *read_member(JSContext *ctx, const uint8_t *p, JSObject *o, JSAtom name, int depth) {
    JSProperty *pr;
    JSValue v;
    if (find_own_property(&pr, o, name))
        return malformed("a name twice");
    if (lazy) {
        const uint8_t *next = skip(p);
        if (!next)
            return NULL;
        if (next - p > LAZY_ITEM)
            return leave(ctx, p, o, name) ? NULL : next;
    }
    p = read_value(ctx, p, depth, &v);
    if (!p || !(pr = add_property(ctx, o, name, JS_PROP_C_W_E)))
        return NULL;
    pr->u.value = v;
    return p;
}

static const uint8_t *read_map(JSContext *ctx, const uint8_t *p, uint64_t count, int depth, JSValue *v) {
    struct item key;
    if (depth > MAX_DEPTH)
        return malformed("it nests too deep");
    if (count > (uint64_t)(input_end - p))
        return malformed("it is longer than the input");
    *v = JS_NewObjectProto(ctx, JS_NULL);
    if (JS_IsException(*v))
        return NULL;
    JSObject *o = JS_VALUE_GET_OBJ(*v);
    while (count-- > 0) {
        if (!(p = head(p, &key)))
            return NULL;
        if (key.major != 3)
            return malformed("a name that is not a text");
        if (key.argument > (uint64_t)(input_end - p))
            return malformed("it is longer than the input");
        JSAtom name = key_atom(ctx, p, (uint32_t)key.argument);
        if (name == JS_ATOM_NULL)
            return NULL;
        p = read_member(ctx, p + key.argument, o, name, depth + 1);
        JS_FreeAtom(ctx, name);
        if (!p)
            return NULL;
    }
    return p;
}

static JSValue integer_value(JSContext *ctx, int64_t n) {
    if (n == (int32_t)n)
        return JS_NewInt32(ctx, (int32_t)n);
    if (n > 9007199254740991 || n < -9007199254740991)
        return JS_NewBigInt64(ctx, n);
    note_whole((double)n, CAME_INTEGER);
    return exact_float(ctx, (double)n);
}

// read_value reads one item and returns what follows. NULL is an error: wrong
// says which, or an exception is pending.
static const uint8_t *read_value(JSContext *ctx, const uint8_t *p, int depth, JSValue *v) {
    struct item it;
    double d;
    *v = JS_UNDEFINED;
    if (!(p = head(p, &it)))
        return NULL;
    switch (it.major) {
    case 0:
    case 1:
        if (it.argument > INT64_MAX)
            return malformed("an integer beyond 64 bits");
        *v = integer_value(ctx, it.major ? -1 - (int64_t)it.argument : (int64_t)it.argument);
        break;
    case 3:
        if (it.argument > (uint64_t)(input_end - p))
            return malformed("it is longer than the input");
        *v = text_value(ctx, p, (uint32_t)it.argument);
        p += it.argument;
        break;
    case 4:
        return read_list(ctx, p, it.argument, depth, v);
    case 5:
        return read_map(ctx, p, it.argument, depth, v);
    case 7:
        if (it.info == 20 || it.info == 21) {
            *v = it.info == 21 ? JS_TRUE : JS_FALSE;
        } else if (it.info == 22) {
            *v = JS_NULL;
        } else if (it.info >= 25 && it.info <= 27 && float_of(&it, &d)) {
            if (ambiguous(d))
                note_whole(d, CAME_FLOAT);
            *v = exact_float(ctx, d);
        } else {
            return malformed("a simple value that JSON has not");
        }
        break;
    default:
        return malformed("bytes or a tag");
    }
    return JS_IsException(*v) ? NULL : p;
}

// read_waiting makes the value of a member that waited. What was kept from an earlier
// call finds its input gone.
static JSValue read_waiting(JSContext *ctx, JSObject *o, JSAtom name, void *at) {
    JSValue v;
    wrong = NULL;
    if ((const uint8_t *)at < input_begin)
        malformed("it is of an earlier call");
    else if (read_value(ctx, at, 1, &v))
        return v;
    if (!wrong)
        return JS_EXCEPTION;
    return JS_ThrowTypeError(ctx, "the request: %s", wrong);
}
