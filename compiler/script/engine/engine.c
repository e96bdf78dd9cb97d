// The engine module: QuickJS as a guest of Holdfast (contract holdfast_v1). It is
// one translation unit with quickjs.c, whose own names it uses. A script lies in
// the payload, which Holdfast puts behind the memory that this module asks for.
//
// Nothing that a decision allocates needs to be freed: the host restores the
// memory after each. So collection of cycles is off, and the request and the
// decision are left as they are.

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

__attribute__((import_module("holdfast_v1"), import_name("log"))) void host_log(int level, const void *text, uint32_t length);
__attribute__((import_module("holdfast_v1"), import_name("now"))) int64_t host_now(void);
__attribute__((import_module("holdfast_v1"), import_name("match"))) int host_match(int pattern, const void *text, uint32_t length);

#define EXPORT(name) __attribute__((export_name(#name)))

// The clock of QuickJS is the request's instant, and its zone is UTC.
static int request_time(struct timeval *tv) {
    int64_t ns = host_now();
    tv->tv_sec = ns / 1000000000;
    tv->tv_usec = ns % 1000000000 / 1000;
    return 0;
}
static void zone(struct tm *tm) { tm->tm_gmtoff = 0; }

#include "quickjs.h"

static JSValue exact_float(JSContext *ctx, double d) { return __JS_NewFloat64(ctx, d); }

// A float without a fraction that QuickJS computes becomes an integer where one
// holds it, so that what has the float's tag came as a float.
static inline JSValue computed_float(JSContext *ctx, double d) { return JS_NewFloat64(ctx, d); }

typedef struct JSObject JSObject;
static JSValue read_waiting(JSContext *ctx, JSObject *o, JSAtom name, void *at);

#define __JS_NewFloat64 computed_float
#define gettimeofday(tv, tz) request_time(tv)
#define localtime_r(t, tm) zone(tm)
#include "quickjs.c"

#include "heap.h"
#include "cbor.h"
#include "decision.h"
#include "instant.h"
#include "native.h"

#define STACK_BYTES (64 * 1024) // of the linked stack: what scripts may use
#define INPUT_BYTES 8192         // a buffer for inputs of at most so many
#define SPARE_BYTES (192 * 1024) // left for a decision

// The payload's place and length, which Holdfast fills in.
struct { const uint8_t *volatile at; volatile uint32_t length; } holdfast_payload = {0, 0};

static JSContext *context;
static uint8_t *input_buffer;
static int failed = 1; // the script did not run to its end

EXPORT(holdfast_abi_v1) int abi_version(void) { return 0; }

EXPORT(holdfast_alloc) void *take_input(uint32_t length) {
    if (length <= INPUT_BYTES)
        return input_buffer;
    return heap_take(length);
}

// new_context leaves out eval, once the script is compiled, and what would make a
// decision depend on more than its input.
static JSContext *new_context(void) {
    JSRuntime *rt = JS_NewRuntime2(&memory_functions, NULL);
    if (!rt)
        return NULL;
    JS_SetGCThreshold(rt, (size_t)-1);
    JS_SetMaxStackSize(rt, STACK_BYTES);
    JSContext *ctx = JS_NewContextRaw(rt);
    if (!ctx)
        return NULL;
    JS_AddIntrinsicBaseObjects(ctx);
    JS_AddIntrinsicDate(ctx);
    JS_AddIntrinsicEval(ctx);
    JS_AddIntrinsicStringNormalize(ctx);
    JS_AddIntrinsicRegExp(ctx);
    JS_AddIntrinsicJSON(ctx);
    JS_AddIntrinsicProxy(ctx);
    JS_AddIntrinsicMapSet(ctx);
    JS_AddIntrinsicTypedArrays(ctx);
    JS_AddIntrinsicPromise(ctx);
    return add_natives(ctx) && make_atoms(ctx) ? ctx : NULL;
}

static void run_script(JSContext *ctx) {
    if (!payload_open(holdfast_payload.at, holdfast_payload.length)) {
        say(LEVEL_ERROR, "the module has no script in it");
        return;
    }
    JSValue f = JS_Eval(ctx, (const char *)payload_source, payload_source_length, SCRIPT_NAME, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_STRICT | JS_EVAL_FLAG_COMPILE_ONLY);
    ctx->eval_internal = NULL;
    if (!JS_IsException(f))
        f = JS_EvalFunction(ctx, f);
    if (JS_IsException(f))
        log_exception(ctx);
    else if (!JS_IsFunction(ctx, decide_function))
        say(LEVEL_ERROR, "the script registers no function decide");
    else
        failed = 0;
}

EXPORT(_initialize) void initialize(void) {
    heap_begin(holdfast_payload.length ? (uintptr_t)holdfast_payload.at : __builtin_wasm_memory_size(0) * PAGE);
    input_buffer = heap_take(INPUT_BYTES);
    if (!(context = new_context())) {
        say(LEVEL_ERROR, "no memory for the engine");
        return;
    }
    run_script(context);
    heap_reserve(SPARE_BYTES);
}

static int open_input(const uint8_t *at, uint32_t length, JSValue *v) {
    input_begin = at;
    input_end = at + length;
    wrong = NULL;
    const uint8_t *end = read_value(context, at, 1, v);
    if (end && end != input_end)
        end = malformed("it goes on behind its end");
    if (end && (JS_VALUE_GET_TAG(*v) != JS_TAG_OBJECT || JS_VALUE_GET_OBJ(*v)->class_id != JS_CLASS_OBJECT))
        end = malformed("it is not a map");
    if (end)
        return 1;
    if (wrong)
        say_two(LEVEL_ERROR, "the input: ", wrong);
    else
        log_exception(context);
    return 0;
}

EXPORT(holdfast_init) int init(const uint8_t *at, uint32_t length) {
    JSValue document, result = JS_UNDEFINED;
    if (failed)
        return 1;
    JS_UpdateStackTop(context->rt);
    lazy = 0;
    if (!open_input(at, length, &document))
        return 2;
    if (JS_IsFunction(context, configure_function)) {
        JSValue arguments[2] = {JS_GetPropertyStr(context, document, "params"), JS_GetPropertyStr(context, document, "data")};
        result = JS_Call(context, configure_function, JS_UNDEFINED, 2, arguments);
    }
    if (JS_IsException(result)) {
        log_exception(context);
        return 3;
    }
    JS_RunGC(context->rt);
    heap_reserve(SPARE_BYTES);
    return 0;
}

EXPORT(holdfast_decide) uint64_t decide(const uint8_t *at, uint32_t length) {
    JSValue request;
    if (failed)
        return 0;
    JS_UpdateStackTop(context->rt);
    lazy = length > LAZY_INPUT;
    if (!open_input(at, length, &request))
        return 0;
    JSValue decision = JS_Call(context, decide_function, JS_UNDEFINED, 1, &request);
    if (JS_IsException(decision) || write_decision(context, decision)) {
        log_exception(context);
        return 0;
    }
    return (uint64_t)(uintptr_t)output << 32 | output_length;
}
