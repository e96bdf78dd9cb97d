// A decision of JavaScript as CBOR: {value?, reasons?, verdict, obligations?}, maps
// sorted by the length of the name and its bytes.

#define OUTPUT_BYTES 65536 // what the host takes
#define OUTPUT_DEPTH 32    // lists and maps in one another, the decision included

static uint8_t output[OUTPUT_BYTES];
static uint32_t output_length;

// fault throws what is wrong with the decision.
static int fault(JSContext *ctx, const char *where, const char *what) {
    JS_ThrowTypeError(ctx, "the decision: %s %s", where, what);
    return -1;
}

static int room(JSContext *ctx, uint32_t n) {
    if (n <= OUTPUT_BYTES - output_length)
        return 0;
    JS_ThrowRangeError(ctx, "the decision is longer than %d bytes", OUTPUT_BYTES);
    return -1;
}

static int write_head(JSContext *ctx, uint32_t major, uint64_t argument) {
    if (room(ctx, 9))
        return -1;
    uint8_t *p = output + output_length;
    uint32_t bytes = argument < 24 ? 0 : argument <= 0xff ? 1 : argument <= 0xffff ? 2 : argument <= 0xffffffff ? 4 : 8;
    static const uint8_t info[9] = {0, 24, 25, 0, 26, 0, 0, 0, 27};
    *p++ = major << 5 | (bytes ? info[bytes] : (uint8_t)argument);
    for (uint32_t i = bytes; i-- > 0;)
        *p++ = argument >> (8 * i);
    output_length = p - output;
    return 0;
}

static int write_bytes(JSContext *ctx, const void *from, uint32_t n) {
    if (room(ctx, n))
        return -1;
    memcpy(output + output_length, from, n);
    output_length += n;
    return 0;
}

static int write_literal(JSContext *ctx, const char *text) {
    uint32_t n = strlen(text);
    return write_head(ctx, 3, n) || write_bytes(ctx, text, n);
}

static inline uint32_t unit(const JSString *s, uint32_t i) { return s->is_wide_char ? s->u.str16[i] : s->u.str8[i]; }

// utf8 writes a string to to, which may be NULL, and returns its length in bytes. Half
// a surrogate pair becomes U+FFFD, or gives -1 when it is strict.
static int64_t utf8(const JSString *s, uint8_t *to, int strict) {
    int64_t n = 0;
    uint8_t four[4];
    for (uint32_t i = 0; i < s->len; i++) {
        uint32_t c = unit(s, i), low = i + 1 < s->len ? unit(s, i + 1) : 0;
        if (c >= 0xd800 && c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c & 1023) << 10) + (low & 1023);
            i++;
        } else if (c >= 0xd800 && c < 0xe000) {
            if (strict)
                return -1;
            c = 0xfffd;
        }
        uint32_t length = unicode_to_utf8(four, c);
        if (to)
            memcpy(to + n, four, length);
        n += length;
    }
    return n;
}

static int is_ascii(const JSString *s) { return !s->is_wide_char && ascii_length(s->u.str8, s->len) == s->len; }

static int write_string(JSContext *ctx, const JSString *s, const char *where) {
    if (is_ascii(s))
        return write_head(ctx, 3, s->len) || write_bytes(ctx, s->u.str8, s->len);
    int64_t n = utf8(s, NULL, 1);
    if (n < 0)
        return fault(ctx, where, "has half a surrogate pair: toWellFormed() of the text mends it");
    if (write_head(ctx, 3, n) || room(ctx, n))
        return -1;
    utf8(s, output + output_length, 1);
    output_length += n;
    return 0;
}

// flat returns a text as one string.
static JSValue flat(JSContext *ctx, JSValue v) {
    return JS_VALUE_GET_TAG(v) == JS_TAG_STRING_ROPE ? js_linearize_string_rope(ctx, JS_DupValue(ctx, v)) : v;
}

// write_text writes a value that must be a text.
static int write_text(JSContext *ctx, JSValue v, const char *where) {
    if (!JS_IsString(v))
        return fault(ctx, where, "is not a text");
    v = flat(ctx, v);
    return JS_IsException(v) ? -1 : write_string(ctx, JS_VALUE_GET_STRING(v), where);
}

static int write_integer(JSContext *ctx, int64_t n) {
    return n < 0 ? write_head(ctx, 1, -1 - n) : write_head(ctx, 0, n);
}

static int whole_number(double d) { return ambiguous(d) && !came_as_float(d); }

static int write_float(JSContext *ctx, double d, const char *where) {
    union { double d; uint64_t u; } bits = {d};
    if (!isfinite(d))
        return fault(ctx, where, isnan(d) ? "is NaN" : "is infinite");
    if (whole_number(d))
        return write_integer(ctx, (int64_t)d);
    if (room(ctx, 9))
        return -1;
    output[output_length++] = 0xfb;
    for (int i = 7; i >= 0; i--)
        output[output_length++] = bits.u >> (8 * i);
    return 0;
}

static int write_bigint(JSContext *ctx, JSValue v, const char *where) {
    int64_t n;
    if (JS_ToBigInt64(ctx, &n, v))
        return -1;
    JSValue again = JS_NewBigInt64(ctx, n);
    if (JS_IsException(again))
        return -1;
    if (!js_strict_eq(ctx, again, v))
        return fault(ctx, where, "is an integer beyond 64 bits");
    return write_integer(ctx, n);
}

static int write_value(JSContext *ctx, JSValue v, int depth, const char *where);

static int write_list(JSContext *ctx, JSValue v, int depth, const char *where) {
    int64_t length;
    if (depth > OUTPUT_DEPTH)
        return fault(ctx, where, "nests too deep, or contains itself");
    if (js_get_length64(ctx, &length, v))
        return -1;
    if (length > OUTPUT_BYTES)
        return fault(ctx, where, "has too many items");
    if (write_head(ctx, 4, length))
        return -1;
    for (int64_t i = 0; i < length; i++) {
        JSValue item = JS_GetPropertyInt64(ctx, v, i);
        if (JS_IsException(item) || write_value(ctx, item, depth + 1, where))
            return -1;
    }
    return 0;
}

struct member {
    const uint8_t *name;
    uint32_t length;
    JSValue value;
};

static int before(const struct member *a, const struct member *b) {
    if (a->length != b->length)
        return a->length < b->length;
    return memcmp(a->name, b->name, a->length) < 0;
}

// sort_members sorts in place: few by insertion, many as a heap.
static void sift(struct member *m, uint32_t i, uint32_t n) {
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&m[child], &m[child + 1]))
            child++;
        if (!before(&m[i], &m[child]))
            return;
        struct member held = m[i];
        m[i] = m[child];
        m[child] = held;
    }
}

static void sort_members(struct member *m, uint32_t n) {
    if (n <= 16) {
        for (uint32_t i = 1; i < n; i++)
            for (uint32_t j = i; j > 0 && before(&m[j], &m[j - 1]); j--) {
                struct member held = m[j];
                m[j] = m[j - 1];
                m[j - 1] = held;
            }
        return;
    }
    for (uint32_t i = n / 2; i-- > 0;)
        sift(m, i, n);
    while (n-- > 1) {
        struct member held = m[0];
        m[0] = m[n];
        m[n] = held;
        sift(m, 0, n);
    }
}

// member_of fills in a member, and reports 1 for one that is undefined, as if it
// were not there.
static int member_of(JSContext *ctx, JSValue object, JSAtom atom, struct member *m, const char *where) {
    m->value = JS_GetProperty(ctx, object, atom);
    if (JS_IsException(m->value))
        return -1;
    if (JS_IsUndefined(m->value))
        return 1;
    JSValue name = JS_AtomToString(ctx, atom);
    if (JS_IsException(name))
        return -1;
    const JSString *s = JS_VALUE_GET_STRING(name);
    m->name = s->u.str8;
    m->length = s->len;
    if (is_ascii(s))
        return 0;
    int64_t n = utf8(s, NULL, 1);
    if (n < 0)
        return fault(ctx, where, "has a name with half a surrogate pair");
    uint8_t *copy = js_malloc(ctx, n);
    if (!copy)
        return -1;
    utf8(s, copy, 1);
    m->name = copy;
    m->length = n;
    return 0;
}

static int write_members(JSContext *ctx, struct member *m, uint32_t n, int depth, const char *where) {
    sort_members(m, n);
    if (write_head(ctx, 5, n))
        return -1;
    for (uint32_t i = 0; i < n; i++)
        if (write_head(ctx, 3, m[i].length) || write_bytes(ctx, m[i].name, m[i].length) || write_value(ctx, m[i].value, depth + 1, where))
            return -1;
    return 0;
}

static int write_map(JSContext *ctx, JSValue v, int depth, const char *where) {
    JSPropertyEnum *names;
    uint32_t count, n = 0;
    struct member few[16], *members = few;
    if (depth > OUTPUT_DEPTH)
        return fault(ctx, where, "nests too deep, or contains itself");
    if (JS_GetOwnPropertyNames(ctx, &names, &count, v, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    if (count > OUTPUT_BYTES)
        return fault(ctx, where, "has too many members");
    if (count > 16 && !(members = js_malloc(ctx, count * sizeof *members)))
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        int skipped = member_of(ctx, v, names[i].atom, &members[n], where);
        if (skipped < 0)
            return -1;
        n += !skipped;
    }
    return write_members(ctx, members, n, depth, where);
}

static int write_object(JSContext *ctx, JSValue v, int depth, const char *where) {
    switch (JS_VALUE_GET_OBJ(v)->class_id) {
    case JS_CLASS_ARRAY:
        return write_list(ctx, v, depth, where);
    case JS_CLASS_OBJECT:
        return write_map(ctx, v, depth, where);
    }
    return fault(ctx, where, JS_IsFunction(ctx, v) ? "is a function" : "is neither a list nor a plain object");
}

static int write_value(JSContext *ctx, JSValue v, int depth, const char *where) {
    switch (JS_VALUE_GET_NORM_TAG(v)) {
    case JS_TAG_NULL:
        return write_head(ctx, 7, 22);
    case JS_TAG_BOOL:
        return write_head(ctx, 7, JS_VALUE_GET_BOOL(v) ? 21 : 20);
    case JS_TAG_INT:
        return write_integer(ctx, JS_VALUE_GET_INT(v));
    case JS_TAG_FLOAT64:
        return write_float(ctx, JS_VALUE_GET_FLOAT64(v), where);
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return write_text(ctx, v, where);
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT:
        return write_bigint(ctx, v, where);
    case JS_TAG_OBJECT:
        return write_object(ctx, v, depth, where);
    case JS_TAG_UNDEFINED:
        return fault(ctx, where, "has an item that is undefined");
    case JS_TAG_SYMBOL:
        return fault(ctx, where, "is a symbol");
    }
    return fault(ctx, where, "has no form in CBOR");
}

// The members of a decision, in the order in which they are written, and those
// of its parts.
enum { M_VALUE, M_REASONS, M_VERDICT, M_OBLIGATIONS, MEMBERS };
static const char *const member_names[MEMBERS] = {"value", "reasons", "verdict", "obligations"};
static const char *const reason_names[] = {"code", "text"};
static const char *const obligation_names[] = {"id", "type", "properties"};
static JSAtom member_atoms[MEMBERS], reason_atoms[2], obligation_atoms[3];

static int make_atoms(JSContext *ctx) {
    for (int i = 0; i < MEMBERS; i++)
        member_atoms[i] = JS_NewAtom(ctx, member_names[i]);
    for (int i = 0; i < 2; i++)
        reason_atoms[i] = JS_NewAtom(ctx, reason_names[i]);
    for (int i = 0; i < 3; i++)
        obligation_atoms[i] = JS_NewAtom(ctx, obligation_names[i]);
    return obligation_atoms[2] != JS_ATOM_NULL;
}

// take reads the members that an object may have, and refuses any other.
static int take(JSContext *ctx, JSValue object, const JSAtom *atoms, int count, JSValue *to, const char *where) {
    JSPropertyEnum *names;
    uint32_t n;
    if (JS_VALUE_GET_TAG(object) != JS_TAG_OBJECT)
        return fault(ctx, where, "is not a plain object");
    if (JS_VALUE_GET_OBJ(object)->class_id == JS_CLASS_PROMISE)
        return fault(ctx, where, "is a promise: nothing is asynchronous in a decision");
    if (JS_VALUE_GET_OBJ(object)->class_id != JS_CLASS_OBJECT)
        return fault(ctx, where, "is not a plain object");
    if (JS_GetOwnPropertyNames(ctx, &names, &n, object, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    for (int i = 0; i < count; i++)
        to[i] = JS_UNDEFINED;
    for (uint32_t k = 0; k < n; k++) {
        int i = 0;
        while (i < count && atoms[i] != names[k].atom)
            i++;
        if (i == count)
            return fault(ctx, where, "has a member that it cannot have");
        to[i] = JS_GetProperty(ctx, object, names[k].atom);
        if (JS_IsException(to[i]))
            return -1;
    }
    return 0;
}

static int absent(JSValue v) { return JS_IsUndefined(v) || JS_IsNull(v); }

static int empty_text(JSValue v) { return JS_VALUE_GET_TAG(v) == JS_TAG_STRING && JS_VALUE_GET_STRING(v)->len == 0; }

// A list that is there and has items.
static int list_length(JSContext *ctx, JSValue v, int64_t *n, const char *where) {
    *n = 0;
    if (absent(v))
        return 0;
    if (JS_VALUE_GET_TAG(v) != JS_TAG_OBJECT || JS_VALUE_GET_OBJ(v)->class_id != JS_CLASS_ARRAY)
        return fault(ctx, where, "is not a list");
    return js_get_length64(ctx, n, v);
}

static int write_reasons(JSContext *ctx, JSValue list, int64_t n) {
    if (write_literal(ctx, "reasons") || write_head(ctx, 4, n))
        return -1;
    for (int64_t i = 0; i < n; i++) {
        JSValue of[2], reason = JS_GetPropertyInt64(ctx, list, i);
        if (JS_IsException(reason) || take(ctx, reason, reason_atoms, 2, of, "a reason") || write_head(ctx, 5, 2) ||
            write_literal(ctx, "code") || write_text(ctx, of[0], "a reason's code") ||
            write_literal(ctx, "text") || write_text(ctx, of[1], "a reason's text"))
            return -1;
    }
    return 0;
}

// has_members tells whether properties have any that is not undefined.
static int has_members(JSContext *ctx, JSValue v) {
    JSPropertyEnum *names;
    uint32_t n;
    if (absent(v))
        return 0;
    if (JS_VALUE_GET_TAG(v) != JS_TAG_OBJECT || JS_VALUE_GET_OBJ(v)->class_id != JS_CLASS_OBJECT)
        return fault(ctx, "an obligation's properties", "are not a plain object");
    if (JS_GetOwnPropertyNames(ctx, &names, &n, v, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        JSValue member = JS_GetProperty(ctx, v, names[i].atom);
        if (JS_IsException(member))
            return -1;
        if (!JS_IsUndefined(member))
            return 1;
    }
    return 0;
}

static int write_obligation(JSContext *ctx, JSValue obligation) {
    JSValue of[3];
    if (take(ctx, obligation, obligation_atoms, 3, of, "an obligation"))
        return -1;
    int id = !absent(of[0]) && !empty_text(of[0]), properties = has_members(ctx, of[2]);
    if (properties < 0 || write_head(ctx, 5, 1 + id + properties))
        return -1;
    if (id && (write_literal(ctx, "id") || write_text(ctx, of[0], "an obligation's id")))
        return -1;
    if (empty_text(of[1]))
        return fault(ctx, "an obligation's type", "is empty");
    if (write_literal(ctx, "type") || write_text(ctx, of[1], "an obligation's type"))
        return -1;
    return properties ? write_literal(ctx, "properties") || write_map(ctx, of[2], 4, "an obligation's properties") : 0;
}

static int write_obligations(JSContext *ctx, JSValue list, int64_t n) {
    if (write_literal(ctx, "obligations") || write_head(ctx, 4, n))
        return -1;
    for (int64_t i = 0; i < n; i++) {
        JSValue obligation = JS_GetPropertyInt64(ctx, list, i);
        if (JS_IsException(obligation) || write_obligation(ctx, obligation))
            return -1;
    }
    return 0;
}

static int write_verdict(JSContext *ctx, JSValue v) {
    static const char *const verdicts[] = {"deny", "require_approval", "throttle", "transform", "allow"};
    const JSString *s = JS_VALUE_GET_TAG(v) == JS_TAG_STRING ? JS_VALUE_GET_STRING(v) : NULL;
    for (int i = 0; s && i < 5; i++)
        if (s->len == strlen(verdicts[i]) && !s->is_wide_char && !memcmp(s->u.str8, verdicts[i], s->len))
            return write_literal(ctx, "verdict") || write_literal(ctx, verdicts[i]);
    return fault(ctx, "verdict", "is none of allow, transform, throttle, require_approval and deny");
}

// write_decision returns 0, or -1 with an exception.
static int write_decision(JSContext *ctx, JSValue decision) {
    JSValue of[MEMBERS];
    int64_t reasons, obligations;
    output_length = 0;
    if (take(ctx, decision, member_atoms, MEMBERS, of, "what decide returned") ||
        list_length(ctx, of[M_REASONS], &reasons, "reasons") || list_length(ctx, of[M_OBLIGATIONS], &obligations, "obligations"))
        return -1;
    int value = !absent(of[M_VALUE]);
    if (write_head(ctx, 5, 1 + value + (reasons > 0) + (obligations > 0)))
        return -1;
    if (value && (write_literal(ctx, "value") || write_value(ctx, of[M_VALUE], 2, "value")))
        return -1;
    if (reasons > 0 && write_reasons(ctx, of[M_REASONS], reasons))
        return -1;
    if (write_verdict(ctx, of[M_VERDICT]))
        return -1;
    return obligations > 0 ? write_obligations(ctx, of[M_OBLIGATIONS], obligations) : 0;
}
