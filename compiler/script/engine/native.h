// What a script reaches of the host, as members of the global object __holdfast,
// and how its exceptions are told.

#define SCRIPT_NAME "policy.js"
enum { LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR };

static JSValue decide_function = JS_UNDEFINED, configure_function = JS_UNDEFINED;

// The payload: the source's length in four bytes, the source and a zero, then for
// every line of it the number of its file, from 1, and the line there, both as
// unsigned LEB128, or a zero; behind the last, the names of the files, each ended
// by a zero. The names' place is given in four bytes behind the source's length.
static const uint8_t *payload_source, *payload_lines, *payload_names, *payload_end;
static uint32_t payload_source_length;

static uint32_t four_bytes(const uint8_t *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }

static int payload_open(const uint8_t *p, uint32_t n) {
    if (n < 9)
        return 0;
    uint32_t source = four_bytes(p), names = four_bytes(p + 4);
    if (source > n - 9 || names > n || names < 9 + source || p[8 + source] != 0)
        return 0;
    payload_source = p + 8;
    payload_source_length = source;
    payload_lines = p + 9 + source;
    payload_names = p + names;
    payload_end = p + n;
    return 1;
}

static void say(int level, const char *text) { host_log(level, text, strlen(text)); }

#define MESSAGE_BYTES 2048
static struct { char text[MESSAGE_BYTES]; uint32_t length; } message;

static void append(const char *text, uint32_t n) {
    if (n > MESSAGE_BYTES - message.length)
        n = MESSAGE_BYTES - message.length;
    memcpy(message.text + message.length, text, n);
    message.length += n;
}

static void append_number(uint32_t n) {
    char digit[10];
    uint32_t i = 10;
    do
        digit[--i] = '0' + n % 10;
    while (n /= 10);
    append(digit + i, 10 - i);
}

static void say_two(int level, const char *text, const char *more) {
    message.length = 0;
    append(text, strlen(text));
    append(more, strlen(more));
    host_log(level, message.text, message.length);
}

static uint32_t unsigned_of(const uint8_t **p) {
    uint32_t v = 0;
    for (int shift = 0; *p < payload_names && shift < 32; shift += 7) {
        uint32_t byte = *(*p)++;
        v |= (byte & 127) << shift;
        if (byte < 128)
            break;
    }
    return v;
}

// file_of finds where a line of the script comes from.
static const char *file_of(uint32_t line, uint32_t *there) {
    const uint8_t *p = payload_lines, *name = payload_names;
    uint32_t file = 0;
    while (line-- > 0 && p < payload_names)
        if ((file = unsigned_of(&p)))
            *there = unsigned_of(&p);
    while (file > 1 && name < payload_end)
        if (*name++ == 0)
            file--;
    return file == 1 && name < payload_end ? (const char *)name : NULL;
}

// append_trace appends a trace of QuickJS, with places in the policy's own files.
static void append_trace(const char *p) {
    while (*p) {
        const char *at = strstr(p, SCRIPT_NAME ":");
        if (!at) {
            append(p, strlen(p));
            return;
        }
        append(p, at - p);
        p = at + strlen(SCRIPT_NAME ":");
        uint32_t line = 0, there;
        while (*p >= '0' && *p <= '9')
            line = line * 10 + (*p++ - '0');
        const char *file = file_of(line, &there);
        append(file ? file : SCRIPT_NAME, strlen(file ? file : SCRIPT_NAME));
        append(":", 1);
        append_number(file ? there : line);
        if (*p == ':') // a column of the script says nothing about the file
            for (p++; *p >= '0' && *p <= '9'; p++)
                ;
    }
}

// log_exception logs the pending exception, with its trace when it has one.
static void log_exception(JSContext *ctx) {
    JSValue e = JS_GetException(ctx);
    message.length = 0;
    const char *text = JS_ToCString(ctx, e);
    if (!text) // its own toString threw, or there is no memory
        JS_GetException(ctx);
    append(text ? text : "an exception that has no text", text ? strlen(text) : 29);
    if (JS_IsError(ctx, e)) {
        JSValue stack = JS_GetPropertyStr(ctx, e, "stack");
        const char *trace = JS_IsString(stack) ? JS_ToCString(ctx, stack) : NULL;
        if (trace && *trace) {
            append("\n", 1);
            append_trace(trace);
        }
        if (JS_IsException(stack))
            JS_GetException(ctx);
    }
    while (message.length > 0 && message.text[message.length - 1] == '\n')
        message.length--;
    host_log(LEVEL_ERROR, message.text, message.length);
}

// bytes_of gives the UTF-8 of a text; half a surrogate pair becomes U+FFFD.
static const uint8_t *bytes_of(JSContext *ctx, JSValue v, uint32_t *n) {
    v = flat(ctx, v);
    if (JS_IsException(v))
        return NULL;
    const JSString *s = JS_VALUE_GET_STRING(v);
    *n = s->len;
    if (is_ascii(s))
        return s->u.str8;
    *n = utf8(s, NULL, 0);
    uint8_t *copy = js_malloc(ctx, *n);
    if (copy)
        utf8(s, copy, 0);
    return copy;
}

static int text_argument(JSContext *ctx, JSValue v, const char *function) {
    if (JS_IsString(v))
        return 1;
    JS_ThrowTypeError(ctx, "%s: the text is not a string", function);
    return 0;
}

static JSValue native_log(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    uint32_t n;
    int32_t level;
    if (JS_ToInt32(ctx, &level, argv[0]))
        return JS_EXCEPTION;
    JSValue text = JS_IsString(argv[1]) ? argv[1] : JS_ToString(ctx, argv[1]);
    if (JS_IsException(text))
        return text;
    const uint8_t *bytes = bytes_of(ctx, text, &n);
    if (!bytes)
        return JS_EXCEPTION;
    host_log(level, bytes, n);
    return JS_UNDEFINED;
}

static JSValue native_now(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    return JS_NewBigInt64(ctx, host_now());
}

static JSValue native_match(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    uint32_t n;
    int32_t pattern;
    if (JS_ToInt32(ctx, &pattern, argv[0]) || !text_argument(ctx, argv[1], "match"))
        return JS_EXCEPTION;
    const uint8_t *bytes = bytes_of(ctx, argv[1], &n);
    if (!bytes)
        return JS_EXCEPTION;
    int found = host_match(pattern, bytes, n);
    if (found < 0)
        return JS_ThrowRangeError(ctx, "match: the manifest has no pattern %d", pattern);
    return found ? JS_TRUE : JS_FALSE;
}

static JSValue native_parse_time(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    uint32_t n;
    int64_t ns;
    if (!JS_IsString(argv[0]))
        return JS_UNDEFINED;
    const uint8_t *bytes = bytes_of(ctx, argv[0], &n);
    if (!bytes)
        return JS_EXCEPTION;
    return instant_of(bytes, n, &ns) ? JS_NewBigInt64(ctx, ns) : JS_UNDEFINED;
}

static JSValue native_is_int(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    JSValue v = argv[0];
    switch (JS_VALUE_GET_NORM_TAG(v)) {
    case JS_TAG_INT:
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT:
        return JS_TRUE;
    case JS_TAG_FLOAT64:
        return whole_number(JS_VALUE_GET_FLOAT64(v)) ? JS_TRUE : JS_FALSE;
    }
    return JS_FALSE;
}

static JSValue native_register(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    decide_function = JS_DupValue(ctx, argv[0]);
    configure_function = JS_DupValue(ctx, argv[1]);
    return JS_UNDEFINED;
}

static JSValue native_random(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    return JS_ThrowTypeError(ctx, "Math.random: a decision depends on its input alone");
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("log", 2, native_log),       JS_CFUNC_DEF("now", 0, native_now),      JS_CFUNC_DEF("match", 2, native_match),
    JS_CFUNC_DEF("parseTime", 1, native_parse_time), JS_CFUNC_DEF("isInt", 1, native_is_int), JS_CFUNC_DEF("register", 2, native_register),
};

static int add_natives(JSContext *ctx) {
    JSValue global = JS_GetGlobalObject(ctx), object = JS_NewObject(ctx), math = JS_GetPropertyStr(ctx, global, "Math");
    if (JS_IsException(object) || JS_IsException(math))
        return 0;
    JS_SetPropertyFunctionList(ctx, object, natives, countof(natives));
    JS_DefinePropertyValueStr(ctx, math, "random", JS_NewCFunction(ctx, native_random, "random", 0), JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    return JS_DefinePropertyValueStr(ctx, global, "__holdfast", object, JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE) >= 0;
}
