/* holdfast.c: the contract's exports, the reader and the writer. */
#include "holdfast.h"

enum { MAX_DEPTH = 40, INPUT_BYTES = 32 << 10, KEPT_BYTES = 4 << 10, OUTPUT_BYTES = HF_LINE_BYTES + 256 };
enum { UINT, NEGINT, BYTES, TEXT, LIST, MAP, TAG, SIMPLE }; /* CBOR's major types */

#define EXPORT(name) __attribute__((export_name(name)))

static uint8_t input[INPUT_BYTES];
static uint8_t kept[KEPT_BYTES];
static uint32_t kept_len;
static struct {
  uint8_t at[OUTPUT_BYTES];
  uint32_t len;
  bool full;
} output;

static void copy(uint8_t *to, const uint8_t *from, uint32_t n) { __builtin_memcpy(to, from, n); }

/* -- reading -- */

typedef struct {
  uint64_t arg;
  uint8_t major;
  uint8_t size; /* 0: malformed */
} head;

/* The head of the item at p; end may be NULL when the document is checked. */
static head read_head(const uint8_t *p, const uint8_t *end) {
  head h = {0};
  if (end && p >= end) return h;
  uint8_t info = *p & 31;
  h.major = *p >> 5;
  if (info < 24) return (head){info, h.major, 1};
  if (info > 27) return h; /* reserved, or an indefinite length */
  uint32_t n = 1u << (info - 24);
  if (end && (uint32_t)(end - p) <= n) return h;
  for (uint32_t i = 1; i <= n; i++) h.arg = h.arg << 8 | p[i];
  h.size = n + 1;
  return h;
}

static const uint8_t *check(const uint8_t *p, const uint8_t *end, int depth);

static const uint8_t *check_items(const uint8_t *p, const uint8_t *end, uint64_t n, bool pairs, int depth) {
  if (n > (uint64_t)(end - p)) return 0;
  while (p && n--) {
    if (pairs && (p >= end || *p >> 5 != TEXT)) return 0;
    if (pairs) p = check(p, end, depth);
    if (p) p = check(p, end, depth);
  }
  return p;
}

/* Where the item at p ends, NULL when it is not what Holdfast writes: definite
 * lengths, text keys, no tags, no byte strings, MAX_DEPTH levels. */
static const uint8_t *check(const uint8_t *p, const uint8_t *end, int depth) {
  head h = read_head(p, end);
  if (!h.size || depth > MAX_DEPTH) return 0;
  const uint8_t *body = p + h.size;
  switch (h.major) {
  case UINT:
  case NEGINT: return h.arg <= INT64_MAX ? body : 0;
  case TEXT: return h.arg <= (uint64_t)(end - body) ? body + h.arg : 0;
  case LIST:
  case MAP: return check_items(body, end, h.arg, h.major == MAP, depth + 1);
  case SIMPLE: return (h.size == 1 ? h.arg >= 20 && h.arg <= 22 : h.size > 2) ? body : 0;
  default: return 0;
  }
}

static hf_value parse(const uint8_t *p, uint32_t len) { return check(p, p + len, 0) == p + len ? p : 0; }

static const uint8_t *skip(const uint8_t *p) {
  for (uint64_t left = 1; left > 0; left--) {
    head h = read_head(p, 0);
    p += h.size;
    if (h.major == TEXT) p += h.arg;
    if (h.major == LIST) left += h.arg;
    if (h.major == MAP) left += 2 * h.arg;
  }
  return p;
}

hf_kind hf_kind_of(hf_value v) {
  static const uint8_t kinds[] = {HF_INT, HF_INT, HF_ABSENT, HF_TEXT, HF_LIST, HF_MAP};
  if (!v) return HF_ABSENT;
  if (*v >> 5 < SIMPLE) return kinds[*v >> 5];
  if (*v >= 0xf9) return HF_FLOAT;
  return *v == 0xf6 ? HF_NULL : HF_BOOL;
}

bool hf_bool(hf_value v) { return v && *v == 0xf5; }

int64_t hf_int(hf_value v) {
  if (hf_kind_of(v) != HF_INT) return 0;
  head h = read_head(v, 0);
  return h.major == NEGINT ? -1 - (int64_t)h.arg : (int64_t)h.arg;
}

hf_text hf_text_of(hf_value v) {
  if (hf_kind_of(v) != HF_TEXT) return (hf_text){0};
  head h = read_head(v, 0);
  return (hf_text){v + h.size, h.arg};
}

uint32_t hf_len(hf_value v) { return hf_kind_of(v) < HF_TEXT ? 0 : read_head(v, 0).arg; }

hf_value hf_first(hf_value v) { return hf_kind_of(v) == HF_LIST ? v + read_head(v, 0).size : 0; }

hf_value hf_next(hf_value v) { return v ? skip(v) : 0; }

hf_value hf_get(hf_value map, hf_text key) {
  if (hf_kind_of(map) != HF_MAP) return 0;
  head h = read_head(map, 0);
  hf_value p = map + h.size;
  for (uint64_t n = h.arg; n > 0; n--) {
    hf_value value = skip(p);
    if (hf_same(hf_text_of(p), key)) return value;
    p = skip(value);
  }
  return 0;
}

hf_value hf_keep(hf_value v) {
  if (!v) return 0;
  uint32_t size = skip(v) - v;
  if (size > KEPT_BYTES - kept_len) return 0;
  uint8_t *to = kept + kept_len;
  copy(to, v, size);
  kept_len += size;
  return to;
}

bool hf_same(hf_text a, hf_text b) {
  if (a.len != b.len) return false;
  for (uint32_t i = 0; i < a.len; i++)
    if (a.at[i] != b.at[i]) return false;
  return true;
}

/* -- writing -- */

void hf_add(hf_line *line, hf_text t) {
  line->full |= t.len > HF_LINE_BYTES - line->len;
  if (line->full) return;
  copy(line->at + line->len, t.at, t.len);
  line->len += t.len;
}

void hf_add_int(hf_line *line, int64_t n) {
  uint8_t digits[20], *p = digits + sizeof digits;
  uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;
  do *--p = '0' + left % 10;
  while (left /= 10);
  if (n < 0) *--p = '-';
  hf_add(line, (hf_text){p, digits + sizeof digits - p});
}

static void put(const uint8_t *at, uint32_t len) {
  output.full |= len > OUTPUT_BYTES - output.len;
  if (output.full) return;
  copy(output.at + output.len, at, len);
  output.len += len;
}

static void put_head(uint8_t major, uint32_t arg) {
  uint8_t h[3] = {major << 5 | 25, arg >> 8, arg};
  if (arg < 24) return h[0] = major << 5 | arg, put(h, 1);
  if (arg < 256) return h[0] = major << 5 | 24, h[1] = arg, put(h, 2);
  put(h, 3);
}

static void put_text(hf_text t) {
  put_head(TEXT, t.len);
  put(t.at, t.len);
}

static void put_decision(const hf_decision *d) {
  output.len = 0;
  output.full = d->text.full;
  put_head(MAP, 2);
  put_text(HF("verdict"));
  put_text(d->verdict);
  put_text(HF("reasons"));
  put_head(LIST, 1);
  put_head(MAP, 2);
  put_text(HF("code"));
  put_text(d->code);
  put_text(HF("text"));
  put_text((hf_text){d->text.at, d->text.len});
}

/* -- the contract -- */

EXPORT("holdfast_abi_v1") int32_t holdfast_abi_v1(void) { return 0; }

EXPORT("holdfast_alloc") const uint8_t *holdfast_alloc(uint32_t len) { return len <= INPUT_BYTES ? input : 0; }

EXPORT("holdfast_init") int32_t holdfast_init(const uint8_t *at, uint32_t len) {
  hf_value doc = parse(at, len);
  return doc && policy_configure(hf_get(doc, HF("params")), hf_get(doc, HF("data"))) ? 0 : 1;
}

EXPORT("holdfast_decide") uint64_t holdfast_decide(const uint8_t *at, uint32_t len) {
  static hf_decision d;
  hf_value request = parse(at, len);
  if (!request) return 0;
  d.verdict = HF("deny");
  d.code = HF("");
  d.text.len = 0;
  d.text.full = false;
  policy_decide(request, &d);
  put_decision(&d);
  return output.full ? 0 : (uint64_t)(uintptr_t)output.at << 32 | output.len;
}
