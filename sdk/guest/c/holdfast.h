/* holdfast.h: what the author of a policy in C or C++ includes. It speaks
 * version 1 of the guest contract (holdfast_abi_v1). Freestanding C17 or C++17:
 * it needs no libc, and there is nothing to link. README.md beside it shows it
 * by example. Names that end in _ are the header's own.
 *
 * The policy is two functions, in one file of the module:
 *
 *   bool policy_configure(hf_value params, hf_value data);
 *   void policy_decide(hf_value request, hf_decision *d);
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <stdbool.h>
#include <stdint.h>

enum {
  HF_MAX_INPUT = 512 << 10,  /* bytes of a request */
  HF_MAX_DEPTH = 40,         /* levels of a document that is read */
  HF_MAX_NEST = 28,          /* levels of a value or of properties that are written */
  HF_MAX_OUTPUT = 64 << 10,  /* bytes of an answer, and of any one text that is made */
  HF_KEEP_EXTRA = 4 << 10,   /* bytes that may be kept beside as many as parameters and data have */
  HF_ROOM = 64 << 10         /* bytes that a call has before the memory must grow */
};

#ifdef __cplusplus
extern "C" {
#endif

/* -- values -- */

/* A value is a view into the document of the call that runs, which was checked
 * before. It copies nothing. NULL is absent, and every function takes an absent
 * value, or one of another kind, and returns the zero of its result. */
typedef const struct hf_item_ *hf_value;

typedef enum { HF_ABSENT, HF_NULL, HF_BOOL, HF_INT, HF_FLOAT, HF_TEXT, HF_LIST, HF_MAP } hf_kind;

/* UTF-8 without a final zero, valid as long as the document. */
typedef struct {
  const uint8_t *at;
  uint32_t len;
} hf_text;

/* HF("literal") is the text of a string literal. */
#ifdef __cplusplus
#define HF(literal) (hf_text{(const uint8_t *)(literal), (uint32_t)sizeof(literal) - 1})
#else
#define HF(literal) ((hf_text){(const uint8_t *)(literal), sizeof(literal) - 1})
#endif

#define HF_FN_ static inline __attribute__((unused))
#define HF_OUT_OF_LINE_ static __attribute__((unused, noinline))
#define HF_EXPORT_(name) __attribute__((weak, used, export_name(name)))
#define HF_IMPORT_(name) __attribute__((import_module("holdfast_v1"), import_name(name)))

enum { HF_UINT_, HF_NEGINT_, HF_BYTES_, HF_TEXT_, HF_LIST_, HF_MAP_, HF_TAG_, HF_SIMPLE_ }; /* CBOR's major types */

typedef struct {
  uint64_t arg;
  const uint8_t *body; /* NULL: malformed */
  uint32_t major;
} hf_head_;

/* The number that n bytes hold, the first one highest. */
HF_OUT_OF_LINE_ uint64_t hf_arg_(const uint8_t *p, uint32_t n) {
  uint64_t arg = 0;
  for (; n > 0; n--) arg = arg << 8 | *p++;
  return arg;
}

/* The head of the item at p; end is NULL when the document was checked. */
HF_FN_ hf_head_ hf_read_(const uint8_t *p, const uint8_t *end) {
  hf_head_ h = {0, 0, 0};
  if (end && p >= end) return h;
  uint32_t info = *p & 31;
  h.major = *p >> 5;
  h.arg = info;
  h.body = ++p;
  if (info < 24) return h;
  uint32_t n = 1u << (info & 3);
  h.body = info > 27 || (end && (uint32_t)(end - p) < n) ? 0 : p + n; /* 28 to 31 are reserved, or an indefinite length */
  if (h.body) h.arg = hf_arg_(p, n);
  return h;
}

HF_FN_ const uint8_t *hf_at_(hf_value v) { return (const uint8_t *)v; }

HF_FN_ hf_value hf_value_at_(const uint8_t *p) { return (hf_value)(const void *)p; }

HF_FN_ uint64_t hf_load8_(const uint8_t *p) {
  uint64_t n;
  __builtin_memcpy(&n, p, 8);
  return n;
}

HF_FN_ uint32_t hf_load4_(const uint8_t *p) {
  uint32_t n;
  __builtin_memcpy(&n, p, 4);
  return n;
}

/* Whether n bytes are the same. */
HF_OUT_OF_LINE_ bool hf_same_(const uint8_t *a, const uint8_t *b, uint32_t n) {
  for (; n >= 8; n -= 8, a += 8, b += 8)
    if (hf_load8_(a) != hf_load8_(b)) return false;
  if (n & 4) {
    if (hf_load4_(a) != hf_load4_(b)) return false;
    a += 4, b += 4;
  }
  for (n &= 3; n > 0; n--)
    if (*a++ != *b++) return false;
  return true;
}

/* Texts are equal, byte for byte. */
HF_FN_ bool hf_equal(hf_text a, hf_text b) { return a.len == b.len && hf_same_(a.at, b.at, a.len); }

HF_OUT_OF_LINE_ int32_t hf_order_bytes_(const uint8_t *a, const uint8_t *b, uint32_t n) {
  for (; n > 0; n--, a++, b++)
    if (*a != *b) return (int32_t)*a - *b;
  return 0;
}

/* The order of a map's keys: by length, then by bytes. Below, at or above 0. */
HF_FN_ int32_t hf_order_(hf_text a, hf_text b) {
  if (a.len != b.len) return a.len < b.len ? -1 : 1;
  return hf_order_bytes_(a.at, b.at, a.len);
}

/* Where the text at p is, and above 32 bits its length. */
HF_OUT_OF_LINE_ uint64_t hf_text_bits_(const uint8_t *p) {
  hf_head_ h = hf_read_(p, 0);
  return h.arg << 32 | (uintptr_t)h.body;
}

HF_FN_ hf_text hf_text_at_(const uint8_t *p) {
  uint64_t bits = hf_text_bits_(p);
  hf_text t = {(const uint8_t *)(uintptr_t)(uint32_t)bits, (uint32_t)(bits >> 32)};
  return t;
}

/* The text at p; a short one, as nearly all are, without a call. */
HF_FN_ hf_text hf_short_(const uint8_t *p) {
  uint32_t first = *p;
  if (first < (HF_TEXT_ << 5 | 24)) {
    hf_text t = {p + 1, first & 31};
    return t;
  }
  return hf_text_at_(p);
}

HF_OUT_OF_LINE_ const uint8_t *hf_check_(const uint8_t *p, const uint8_t *end, uint64_t n, bool pairs, uint32_t depth);

/* hf_check_ of one item whose head has more than one byte. */
HF_OUT_OF_LINE_ const uint8_t *hf_check_long_(const uint8_t *p, const uint8_t *end, uint32_t depth) {
  hf_head_ h = hf_read_(p, end);
  if (!h.body) return 0;
  switch (h.major) {
  case HF_UINT_:
  case HF_NEGINT_: return h.arg <= INT64_MAX ? h.body : 0;
  case HF_TEXT_: return h.arg <= (uint64_t)(end - h.body) ? h.body + h.arg : 0;
  case HF_LIST_:
  case HF_MAP_: return hf_check_(h.body, end, h.arg, h.major == HF_MAP_, depth + 1);
  case HF_SIMPLE_: return h.body - p > 2 ? h.body : 0; /* a float */
  default: return 0;
  }
}

/* Where n items end, or as many pairs, that begin at p; NULL when they are not
 * what Holdfast writes: definite lengths, text keys in their order and none
 * twice, no tags, no byte strings, HF_MAX_DEPTH levels. */
HF_OUT_OF_LINE_ const uint8_t *hf_check_(const uint8_t *p, const uint8_t *end, uint64_t n, bool pairs, uint32_t depth) {
  if (depth > HF_MAX_DEPTH || n > (uint64_t)(end - p)) return 0;
  hf_text last = {0, 0};
  for (uint32_t left = (uint32_t)n; left > 0; left--) {
    if (pairs) {
      if (p >= end || *p >> 5 != HF_TEXT_) return 0;
      const uint8_t *key = p;
      p = (*p & 31) < 24 ? p + 1 + (*p & 31) : hf_check_long_(p, end, depth);
      if (!p || p >= end) return 0;
      hf_text name = hf_short_(key);
      if (last.at && hf_order_(last, name) >= 0) return 0;
      last = name;
    }
    if (p >= end) return 0;
    uint32_t first = *p, info = first & 31;
    if (info >= 24) {
      p = hf_check_long_(p, end, depth);
      if (!p) return 0;
      continue;
    }
    p++;
    if (first < HF_BYTES_ << 5) continue;
    if (first < HF_TEXT_ << 5) return 0;
    if (first < HF_LIST_ << 5) {
      p += info;
      if (p > end) return 0;
    } else if (first < HF_TAG_ << 5) {
      p = hf_check_(p, end, info, first >= HF_MAP_ << 5, depth + 1);
      if (!p) return 0;
    } else if (first < 0xf4 || first > 0xf6) { /* false, true and null */
      return 0;
    }
  }
  return p;
}

HF_FN_ hf_value hf_parse_(const uint8_t *p, uint32_t len) { return hf_check_(p, p + len, 1, false, 0) == p + len ? hf_value_at_(p) : 0; }

/* Where the checked item at p ends. */
HF_OUT_OF_LINE_ const uint8_t *hf_skip_(const uint8_t *p) {
  for (uint32_t left = 1; left > 0; left--) {
    uint32_t first = *p, arg = first & 31;
    if (arg < 24) {
      p++;
    } else {
      hf_head_ h = hf_read_(p, 0);
      p = h.body;
      arg = (uint32_t)h.arg;
    }
    if (first < HF_TEXT_ << 5 || first >= HF_SIMPLE_ << 5) continue;
    if (first < HF_LIST_ << 5) p += arg;
    else left += first < HF_MAP_ << 5 ? arg : 2 * arg;
  }
  return p;
}

HF_OUT_OF_LINE_ hf_kind hf_kind_of(hf_value v) {
  static const uint8_t kinds[] = {HF_INT, HF_INT, HF_ABSENT, HF_TEXT, HF_LIST, HF_MAP, HF_ABSENT};
  if (!v) return HF_ABSENT;
  uint32_t first = *hf_at_(v);
  if (first >> 5 < HF_SIMPLE_) return (hf_kind)kinds[first >> 5];
  return first >= 0xf9 ? HF_FLOAT : first == 0xf6 ? HF_NULL : HF_BOOL;
}

HF_FN_ bool hf_is_(hf_value v, uint32_t major) { return v && *hf_at_(v) >> 5 == major; }

HF_FN_ bool hf_bool(hf_value v) { return v && *hf_at_(v) == 0xf5; }

HF_OUT_OF_LINE_ int64_t hf_int(hf_value v) {
  if (hf_kind_of(v) != HF_INT) return 0;
  hf_head_ h = hf_read_(hf_at_(v), 0);
  return h.major == HF_NEGINT_ ? -1 - (int64_t)h.arg : (int64_t)h.arg;
}

/* The bits of the binary64 with the value of a binary16. */
HF_FN_ uint64_t hf_half_(uint32_t half) {
  uint64_t sign = (uint64_t)(half >> 15) << 63, fraction = half & 1023;
  uint32_t exponent = half >> 10 & 31;
  double small = (double)fraction * 0x1p-24;
  uint64_t bits;
  __builtin_memcpy(&bits, &small, 8);
  if (exponent) bits = (uint64_t)(exponent == 31 ? 2047 : exponent + 1008) << 52 | fraction << 42;
  return sign | bits;
}

HF_FN_ uint64_t hf_float_bits_(const uint8_t *p) {
  hf_head_ h = hf_read_(p, 0);
  if (*p == 0xf9) return hf_half_((uint32_t)h.arg);
  if (*p == 0xfb) return h.arg;
  uint32_t narrow = (uint32_t)h.arg;
  float f;
  __builtin_memcpy(&f, &narrow, 4);
  double wide = f;
  uint64_t bits;
  __builtin_memcpy(&bits, &wide, 8);
  return bits;
}

/* A number of either kind; integers beyond 2^53 are rounded. */
HF_FN_ double hf_float(hf_value v) {
  if (hf_kind_of(v) != HF_FLOAT) return (double)hf_int(v);
  uint64_t bits = hf_float_bits_(hf_at_(v));
  double d;
  __builtin_memcpy(&d, &bits, 8);
  return d;
}

HF_FN_ hf_text hf_text_of(hf_value v) {
  hf_text none = {0, 0};
  return hf_is_(v, HF_TEXT_) ? hf_text_at_(hf_at_(v)) : none;
}

/* Bytes of a text, items of a list or members of a map. */
HF_OUT_OF_LINE_ uint32_t hf_len(hf_value v) { return hf_kind_of(v) < HF_TEXT ? 0 : (uint32_t)hf_read_(hf_at_(v), 0).arg; }

HF_OUT_OF_LINE_ hf_value hf_get_(hf_value map, const uint8_t *key, uint32_t len) {
  if (!hf_is_(map, HF_MAP_)) return 0;
  hf_head_ h = hf_read_(hf_at_(map), 0);
  const uint8_t *p = h.body;
  for (uint32_t n = (uint32_t)h.arg; n > 0; n--) {
    hf_text name = hf_short_(p);
    p = name.at + name.len;
    if (name.len > len) return 0; /* keys are sorted by length */
    if (name.len == len && hf_same_(name.at, key, len)) return hf_value_at_(p);
    p = hf_skip_(p);
  }
  return 0;
}

/* The member of a map. */
HF_FN_ hf_value hf_get(hf_value map, hf_text key) { return hf_get_(map, key.at, key.len); }

/* What is found by following the keys, with dots between them, through maps:
 * hf_path(request, HF("context.arguments.amount")). */
HF_OUT_OF_LINE_ hf_value hf_path_(hf_value v, const uint8_t *keys, uint32_t len) {
  for (uint32_t from = 0, to = 0; v; from = ++to) {
    while (to < len && keys[to] != '.') to++;
    v = hf_get_(v, keys + from, to - from);
    if (to == len) return v;
  }
  return 0;
}
HF_FN_ hf_value hf_path(hf_value v, hf_text keys) { return hf_path_(v, keys.at, keys.len); }

/* Walks the items of a list or the members of a map, in their order; nothing of
 * another kind.
 *
 *   for (hf_each e = hf_items(list); hf_next(&e);) use(e.value);
 */
typedef struct {
  const uint8_t *rest_;
  uint32_t left_;
  bool map_;
  hf_text key; /* of the member */
  hf_value value;
} hf_each;

HF_FN_ hf_each hf_items(hf_value v) {
  hf_each e = {0, 0, false, {0, 0}, 0};
  e.map_ = hf_is_(v, HF_MAP_);
  if (!e.map_ && !hf_is_(v, HF_LIST_)) return e;
  hf_text all = hf_text_at_(hf_at_(v)); /* the same head */
  e.rest_ = all.at;
  e.left_ = all.len;
  return e;
}

HF_FN_ bool hf_next(hf_each *e) {
  if (!e->left_) return false;
  if (e->value) e->rest_ = hf_skip_(e->rest_);
  e->left_--;
  if (e->map_) {
    e->key = hf_text_at_(e->rest_);
    e->rest_ = e->key.at + e->key.len;
  }
  e->value = hf_value_at_(e->rest_);
  return true;
}

/* -- texts -- */

HF_FN_ uint8_t hf_lower_(uint8_t c) { return c >= 'A' && c <= 'Z' ? c | 32 : c; }

/* Texts are equal, where an ASCII letter equals the same of the other case. */
HF_FN_ bool hf_equal_fold(hf_text a, hf_text b) {
  if (a.len != b.len) return false;
  for (uint32_t i = 0; i < a.len; i++)
    if (hf_lower_(a.at[i]) != hf_lower_(b.at[i])) return false;
  return true;
}

HF_FN_ bool hf_has_prefix(hf_text t, hf_text prefix) { return t.len >= prefix.len && hf_same_(t.at, prefix.at, prefix.len); }

HF_FN_ bool hf_has_suffix(hf_text t, hf_text suffix) {
  return t.len >= suffix.len && hf_same_(t.at + (t.len - suffix.len), suffix.at, suffix.len);
}

HF_FN_ bool hf_contains(hf_text t, hf_text part) {
  for (uint32_t i = 0; part.len <= t.len && i <= t.len - part.len; i++)
    if (hf_same_(t.at + i, part.at, part.len)) return true;
  return false;
}

HF_OUT_OF_LINE_ bool hf_lists_(hf_value list, const uint8_t *at, uint32_t len) {
  if (!hf_is_(list, HF_LIST_)) return false;
  hf_head_ h = hf_read_(hf_at_(list), 0);
  const uint8_t *p = h.body;
  for (uint32_t n = (uint32_t)h.arg; n > 0; n--) {
    if (*p >> 5 != HF_TEXT_) {
      p = hf_skip_(p);
      continue;
    }
    hf_text t = hf_short_(p);
    if (t.len == len && hf_same_(t.at, at, len)) return true;
    p = t.at + t.len;
  }
  return false;
}

/* Whether a list has the text among its items. */
HF_FN_ bool hf_lists(hf_value list, hf_text t) { return hf_lists_(list, t.at, t.len); }

/* Whether the asker said that it can perform obligations of the type. */
HF_FN_ bool hf_performs(hf_value request, hf_text type) { return hf_lists(hf_get(request, HF("supported_obligations")), type); }

/* The number of n digits at p, at most max; -1 when it is not one. */
HF_OUT_OF_LINE_ int32_t hf_digits_(const uint8_t *p, uint32_t n, int32_t max) {
  int32_t number = 0;
  for (; n > 0; n--, p++) {
    if (*p < '0' || *p > '9') return -1;
    number = number * 10 + (*p - '0');
  }
  return number <= max ? number : -1;
}

HF_FN_ bool hf_leap_(int32_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

/* Days from 1970 to the date, -1 when there is no such day. */
HF_FN_ int32_t hf_days_(int32_t year, int32_t month, int32_t day) {
  static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
  if (year < 1970 || month < 1 || day < 1) return -1;
  bool leap = hf_leap_(year);
  if (day > before[month] - before[month - 1] + (leap && month == 2)) return -1;
  int32_t past = year - 1;
  return (year - 1970) * 365 + past / 4 - past / 100 + past / 400 - 477 + before[month - 1] + (leap && month > 2) + day - 1;
}

/* Seconds east of Greenwich of "Z", "z", "+HH:MM" or "-HH:MM", which is all that t has. */
HF_FN_ bool hf_zone_(const uint8_t *p, uint32_t n, int32_t *seconds) {
  *seconds = 0;
  if (n == 1) return (*p | 32) == 'z';
  if (n != 6 || (*p != '+' && *p != '-') || p[3] != ':') return false;
  int32_t hours = hf_digits_(p + 1, 2, 23), minutes = hf_digits_(p + 4, 2, 59);
  *seconds = (hours * 60 + minutes) * (*p == '-' ? -60 : 60);
  return hours >= 0 && minutes >= 0;
}

/* The instant of a text in RFC 3339, in nanoseconds since 1970: date, T or t,
 * time to the second with at most 9 more digits behind a dot, and a zone. Years
 * are 1970 to 2200, no leap seconds. False when it is not one. */
HF_OUT_OF_LINE_ bool hf_time(hf_text t, int64_t *ns) {
  const uint8_t *p = t.at;
  *ns = 0;
  if (t.len < 20 || p[4] != '-' || p[7] != '-' || (p[10] | 32) != 't' || p[13] != ':' || p[16] != ':') return false;
  int32_t month = hf_digits_(p + 5, 2, 12);
  int32_t days = month < 1 ? -1 : hf_days_(hf_digits_(p, 4, 2200), month, hf_digits_(p + 8, 2, 31));
  int32_t hours = hf_digits_(p + 11, 2, 23), minutes = hf_digits_(p + 14, 2, 59), seconds = hf_digits_(p + 17, 2, 59);
  if (days < 0 || hours < 0 || minutes < 0 || seconds < 0) return false;
  uint32_t at = 19;
  int64_t fraction = 0;
  if (p[at] == '.') {
    int64_t unit = 100000000;
    for (at++; at < t.len && p[at] >= '0' && p[at] <= '9'; at++, unit /= 10) fraction += unit * (p[at] - '0');
    if (at == 20 || at > 29) return false;
  }
  int32_t zone;
  if (!hf_zone_(p + at, t.len - at, &zone)) return false;
  *ns = ((int64_t)days * 86400 + hours * 3600 + minutes * 60 + seconds - zone) * 1000000000 + fraction;
  return true;
}

/* -- memory -- */

/* Above the module's own data lies what configuration kept, and above that what
 * one call uses: the input, then the arena. */
typedef struct {
  uint8_t *floor; /* where the memory of a call begins */
  uint8_t *top;   /* of the arena */
  uint8_t *end;   /* of the memory */
  uint8_t *keep;  /* while configuring: where the next kept bytes go */
  uint8_t *input;
  uint32_t input_len;
  bool ready;  /* configured */
  bool failed; /* this call ends as a guest error */
} hf_state_;
__attribute__((weak)) hf_state_ hf_mem_;
extern uint8_t __heap_base;

/* Makes the decision a guest error, which the host answers with the point's
 * fail mode. What does not fit does so by itself. */
HF_FN_ void hf_fail(void) { hf_mem_.failed = true; }

HF_OUT_OF_LINE_ bool hf_grow_(uint32_t bytes) {
  uint32_t pages = (bytes + 65535) >> 16;
  if (bytes > 1u << 30 || __builtin_wasm_memory_grow(0, pages) == (__SIZE_TYPE__)-1) return false;
  hf_mem_.end += pages << 16;
  return true;
}

/* Memory for so many bytes, which holds anything, valid until the call ends.
 * It is not cleared, and there is no way to give it back. NULL makes the decision a
 * guest error. */
HF_OUT_OF_LINE_ void *hf_alloc(uint32_t bytes) {
  uint32_t left = (uint32_t)(hf_mem_.end - hf_mem_.top), n = (bytes + 7) & ~7u;
  if (n < bytes || (n > left && !hf_grow_(n - left))) return hf_fail(), (void *)0;
  uint8_t *at = hf_mem_.top;
  hf_mem_.top += n;
  return at;
}

HF_OUT_OF_LINE_ const uint8_t *hf_keep_(const uint8_t *from, uint32_t n) {
  if (hf_mem_.ready || !from || n > (uint32_t)(hf_mem_.input - hf_mem_.keep)) return 0;
  uint8_t *to = hf_mem_.keep;
  __builtin_memcpy(to, from, n);
  hf_mem_.keep += n;
  return to;
}

/* A copy of the value that outlives policy_configure, in which alone it may be
 * called; what is not kept is gone. NULL for what is absent, and when there is
 * no room: HF_KEEP_EXTRA bytes more than parameters and data have. */
HF_OUT_OF_LINE_ hf_value hf_keep(hf_value v) { return v ? hf_value_at_(hf_keep_(hf_at_(v), (uint32_t)(hf_skip_(hf_at_(v)) - hf_at_(v)))) : 0; }

/* The same for a text, which may be one that was made. */
HF_FN_ hf_text hf_keep_text(hf_text t) {
  hf_text kept = {hf_keep_(t.at, t.len), t.len};
  if (!kept.at) kept.len = 0;
  return kept;
}

/* A text in the making; begins as {0}. line.text is what it has so far, valid
 * until more is added. One beyond HF_MAX_OUTPUT makes the decision a guest error. */
typedef struct {
  hf_text text;
  uint32_t room_;
} hf_line;

/* Where n more bytes may be written; NULL when there is no room. */
HF_OUT_OF_LINE_ uint8_t *hf_reserve_(hf_line *line, uint32_t n) {
  uint8_t *at = (uint8_t *)line->text.at;
  uint32_t len = line->text.len;
  if (n > HF_MAX_OUTPUT - len) return hf_fail(), (uint8_t *)0;
  if (n <= line->room_ - len) return at + len;
  bool last = at && at + line->room_ == hf_mem_.top;
  uint32_t room = (2 * (len + n) + 64) & ~7u;
  uint8_t *to = (uint8_t *)hf_alloc(last ? room - line->room_ : room);
  if (!to) return 0;
  if (!last) {
    if (len) __builtin_memcpy(to, at, len);
    line->text.at = at = to;
  }
  line->room_ = room;
  return at + len;
}

HF_OUT_OF_LINE_ void hf_add_(hf_line *line, const uint8_t *at, uint32_t n) {
  uint8_t *to = hf_reserve_(line, n);
  if (!to) return;
  __builtin_memcpy(to, at, n);
  line->text.len += n;
}

HF_FN_ void hf_add(hf_line *line, hf_text t) { hf_add_(line, t.at, t.len); }

/* Adds a number in decimal. */
HF_OUT_OF_LINE_ void hf_add_int(hf_line *line, int64_t n) {
  uint8_t digits[20], *p = digits + sizeof digits;
  uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;
  do *--p = (uint8_t)('0' + left % 10);
  while (left /= 10);
  if (n < 0) *--p = '-';
  hf_add_(line, p, (uint32_t)(digits + sizeof digits - p));
}

/* -- documents -- */

typedef struct {
  uint32_t start; /* of the list or map; one byte is left for its head */
  uint32_t count;
  uint32_t key;  /* where the last key is */
  bool map, pending /* a key without its value */, unsorted;
} hf_frame_;

/* A document in the making: hf_put_... writes an item, hf_open_... and hf_close
 * enclose those of a list or a map, hf_key names the next item of a map. Keys
 * come in any order and are written in the one that is prescribed. One that is not
 * whole, has a key twice, nests deeper than HF_MAX_NEST or has a text that is not
 * UTF-8 makes the decision a guest error. NULL is taken, and ignored. */
typedef struct hf_doc {
  hf_line out_;
  uint32_t depth_;
  hf_frame_ frames_[HF_MAX_NEST];
} hf_doc;

HF_OUT_OF_LINE_ bool hf_utf8_(const uint8_t *p, uint32_t n) {
  const uint8_t *end = p + n;
  while (p < end) {
    if (end - p >= 8 && !(hf_load8_(p) & 0x8080808080808080u)) {
      p += 8;
      continue;
    }
    uint8_t first = *p++;
    if (first < 0x80) continue;
    uint32_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || (uint32_t)(end - p) < more) return false;
    if (*p < (first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80) || *p > (first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf)) return false;
    for (; more > 0; more--)
      if ((*p++ & 0xc0) != 0x80) return false;
  }
  return true;
}

/* Writes a head of at most 9 bytes and returns where it ends. */
HF_OUT_OF_LINE_ uint8_t *hf_write_head_(uint8_t *p, uint32_t major, uint64_t arg) {
  if (arg < 24) return *p = (uint8_t)(major << 5 | arg), p + 1;
  uint32_t size = arg < 1 << 8 ? 0 : arg < 1 << 16 ? 1 : arg < (uint64_t)1 << 32 ? 2 : 3;
  *p = (uint8_t)(major << 5 | (24 + size));
  uint8_t *end = p + 1 + (1u << size);
  for (p = end; size < 4 && arg; arg >>= 8) *--p = (uint8_t)arg;
  while (p > end - (1u << size)) *--p = 0;
  return end;
}

HF_OUT_OF_LINE_ uint8_t *hf_write_bytes_(uint8_t *p, const uint8_t *at, uint32_t n) {
  if (!hf_utf8_(at, n)) hf_fail();
  p = hf_write_head_(p, HF_TEXT_, n);
  __builtin_memcpy(p, at, n);
  return p + n;
}

HF_FN_ uint8_t *hf_write_text_(uint8_t *p, hf_text t) { return hf_write_bytes_(p, t.at, t.len); }

HF_FN_ uint8_t *hf_write_float_(uint8_t *p, uint64_t bits) {
  if ((bits >> 52 & 2047) == 2047) hf_fail(); /* not a number, or infinite: JSON has none */
  *p = 0xfb;
  bits = __builtin_bswap64(bits);
  __builtin_memcpy(p + 1, &bits, 8);
  return p + 9;
}

/* Counts the next item and returns where its first n bytes go; NULL when none
 * may come here, or there is no room. */
HF_OUT_OF_LINE_ uint8_t *hf_item_next_(hf_doc *doc, uint32_t n) {
  if (!doc) return 0;
  if (!doc->depth_) return doc->out_.text.len ? hf_fail(), (uint8_t *)0 : hf_reserve_(&doc->out_, n);
  hf_frame_ *f = &doc->frames_[doc->depth_ - 1];
  if (f->map && !f->pending) return hf_fail(), (uint8_t *)0;
  if (!f->map) f->count++;
  f->pending = false;
  return hf_reserve_(&doc->out_, n);
}

HF_FN_ void hf_wrote_(hf_doc *doc, const uint8_t *end) { doc->out_.text.len = (uint32_t)(end - doc->out_.text.at); }

HF_OUT_OF_LINE_ void hf_put_simple_(hf_doc *doc, uint8_t b) {
  uint8_t *p = hf_item_next_(doc, 1);
  if (p) *p = b, hf_wrote_(doc, p + 1);
}

HF_FN_ void hf_put_null(hf_doc *doc) { hf_put_simple_(doc, 0xf6); }

HF_FN_ void hf_put_bool(hf_doc *doc, bool b) { hf_put_simple_(doc, b ? 0xf5 : 0xf4); }

HF_OUT_OF_LINE_ void hf_put_int(hf_doc *doc, int64_t n) {
  uint8_t *p = hf_item_next_(doc, 9);
  if (p) hf_wrote_(doc, hf_write_head_(p, n < 0 ? HF_NEGINT_ : HF_UINT_, n < 0 ? ~(uint64_t)n : (uint64_t)n));
}

/* Not a number and infinity make the decision a guest error. */
HF_FN_ void hf_put_float(hf_doc *doc, double d) {
  uint8_t *p = hf_item_next_(doc, 9);
  uint64_t bits;
  __builtin_memcpy(&bits, &d, 8);
  if (p) hf_wrote_(doc, hf_write_float_(p, bits));
}

HF_FN_ void hf_put_text(hf_doc *doc, hf_text t) {
  if (t.len > HF_MAX_OUTPUT) return hf_fail();
  uint8_t *p = hf_item_next_(doc, t.len + 9);
  if (p) hf_wrote_(doc, hf_write_text_(p, t));
}

HF_OUT_OF_LINE_ void hf_open_(hf_doc *doc, bool map) {
  uint8_t *p = hf_item_next_(doc, 1);
  if (!p) return;
  if (doc->depth_ == HF_MAX_NEST) return hf_fail();
  hf_frame_ f = {doc->out_.text.len, 0, 0, map, false, false};
  doc->frames_[doc->depth_++] = f;
  hf_wrote_(doc, p + 1);
}

HF_FN_ void hf_open_map(hf_doc *doc) { hf_open_(doc, true); }

HF_FN_ void hf_open_list(hf_doc *doc) { hf_open_(doc, false); }

/* Names the next item of the open map, and returns doc: hf_put_int(hf_key(doc, HF("n")), 7). */
HF_OUT_OF_LINE_ hf_doc *hf_key(hf_doc *doc, hf_text key) {
  if (!doc) return doc;
  hf_frame_ *f = doc->depth_ ? &doc->frames_[doc->depth_ - 1] : 0;
  uint8_t *p = f && f->map && !f->pending && key.len <= HF_MAX_OUTPUT ? hf_reserve_(&doc->out_, key.len + 9) : 0;
  if (!p) return hf_fail(), doc;
  int32_t order = f->count ? hf_order_(hf_text_at_(doc->out_.text.at + f->key), key) : -1;
  if (order == 0) hf_fail();
  if (order > 0) f->unsorted = true;
  f->key = doc->out_.text.len;
  f->count++;
  f->pending = true;
  hf_wrote_(doc, hf_write_text_(p, key));
  return doc;
}

typedef struct {
  const uint8_t *at;
  uint32_t size;
} hf_member_;

HF_FN_ void hf_sort_members_(hf_member_ *m, uint32_t n) {
  for (uint32_t gap = n / 2; gap > 0; gap /= 2)
    for (uint32_t i = gap; i < n; i++) {
      hf_member_ moved = m[i];
      uint32_t to = i;
      for (; to >= gap && hf_order_(hf_text_at_(m[to - gap].at), hf_text_at_(moved.at)) > 0; to -= gap) m[to] = m[to - gap];
      m[to] = moved;
    }
}

/* Puts the n members that begin at p, and have size bytes, into their order. */
HF_OUT_OF_LINE_ void hf_sort_(uint8_t *p, uint32_t size, uint32_t n) {
  uint8_t *top = hf_mem_.top;
  uint8_t *copy = (uint8_t *)hf_alloc(size);
  hf_member_ *m = (hf_member_ *)hf_alloc(n * (uint32_t)sizeof(hf_member_));
  if (!copy || !m) return;
  __builtin_memcpy(copy, p, size);
  const uint8_t *from = copy;
  for (uint32_t i = 0; i < n; i++) {
    m[i].at = from;
    from = hf_skip_(hf_skip_(from));
    m[i].size = (uint32_t)(from - m[i].at);
  }
  hf_sort_members_(m, n);
  for (uint32_t i = 0; i < n; p += m[i].size, i++) {
    if (i && hf_order_(hf_text_at_(m[i - 1].at), hf_text_at_(m[i].at)) == 0) hf_fail();
    __builtin_memcpy(p, m[i].at, m[i].size);
  }
  hf_mem_.top = top;
}

/* Ends the list or map that was opened last. */
HF_OUT_OF_LINE_ void hf_close(hf_doc *doc) {
  if (!doc) return;
  if (!doc->depth_) return hf_fail();
  hf_frame_ *f = &doc->frames_[--doc->depth_];
  uint32_t size = doc->out_.text.len - f->start - 1;
  if (f->pending) return hf_fail();
  uint32_t more = f->count < 24 ? 0 : f->count < 1 << 8 ? 1 : f->count < 1 << 16 ? 2 : 4;
  if (!hf_reserve_(&doc->out_, more)) return;
  uint8_t *head = (uint8_t *)doc->out_.text.at + f->start;
  if (f->unsorted) hf_sort_(head + 1, size, f->count);
  if (more) __builtin_memmove(head + 1 + more, head + 1, size);
  hf_write_head_(head, f->map ? HF_MAP_ : HF_LIST_, f->count);
  doc->out_.text.len += more;
}

/* Copies the checked item at p and returns where it ends. Numbers are written
 * as those that were put. */
HF_OUT_OF_LINE_ const uint8_t *hf_copy_(hf_doc *doc, const uint8_t *p, uint32_t depth) {
  hf_head_ h = hf_read_(p, 0);
  bool text = h.major == HF_TEXT_, items = h.major == HF_LIST_ || h.major == HF_MAP_;
  uint8_t *to = text && h.arg > HF_MAX_OUTPUT ? 0 : hf_reserve_(&doc->out_, 9 + (text ? (uint32_t)h.arg : 0));
  if (!to || (items && depth == HF_MAX_NEST)) return hf_fail(), (const uint8_t *)0;
  if (text) return hf_wrote_(doc, hf_write_text_(to, hf_text_at_(p))), h.body + h.arg;
  if (h.major == HF_SIMPLE_ && h.body - p > 1) to = hf_write_float_(to, hf_float_bits_(p));
  else to = hf_write_head_(to, h.major, h.arg);
  hf_wrote_(doc, to);
  p = h.body;
  for (uint64_t n = !items ? 0 : h.major == HF_MAP_ ? 2 * h.arg : h.arg; n > 0 && p; n--) p = hf_copy_(doc, p, depth + 1);
  return p;
}

/* Copies a value of the request or of the configuration. An absent one makes
 * the decision a guest error. */
HF_FN_ void hf_put_value(hf_doc *doc, hf_value v) {
  if (!v) return hf_fail();
  if (hf_item_next_(doc, 1)) hf_copy_(doc, hf_at_(v), doc->depth_);
}

/* A whole document as a value, valid until more is put; NULL when it is not
 * whole. A document of one's own begins as {0}. */
HF_FN_ hf_value hf_as_value(const hf_doc *doc) { return doc->depth_ || !doc->out_.text.len ? 0 : hf_value_at_(doc->out_.text.at); }

/* -- decisions -- */

/* The verdicts, strongest first. */
typedef enum { HF_DENY, HF_REQUIRE_APPROVAL, HF_THROTTLE, HF_TRANSFORM, HF_ALLOW } hf_verdict;

typedef struct hf_reason_ {
  struct hf_reason_ *next;
  hf_text code, text;
} hf_reason_;

typedef struct hf_obligation_ {
  struct hf_obligation_ *next;
  hf_text id, type;
  hf_doc properties;
} hf_obligation_;

/* What the policy answers; it begins as a denial without a reason. */
typedef struct {
  hf_verdict verdict;
  hf_reason_ *reasons_, **last_reason_;
  hf_obligation_ *obligations_, **last_obligation_;
  hf_doc *value_;
} hf_decision;

HF_OUT_OF_LINE_ void hf_reason_add_(hf_decision *d, const uint8_t *code, uint32_t code_len, const uint8_t *text, uint32_t text_len) {
  hf_reason_ *r = (hf_reason_ *)hf_alloc(sizeof(hf_reason_));
  if (!r) return;
  r->next = 0;
  r->code.at = code;
  r->code.len = code_len;
  r->text.at = text;
  r->text.len = text_len;
  *d->last_reason_ = r;
  d->last_reason_ = &r->next;
}

/* Adds a reason. The code is for machines and stable, the text is for people.
 * Both are looked at when policy_decide has returned. */
HF_FN_ void hf_reason(hf_decision *d, hf_text code, hf_text text) { hf_reason_add_(d, code.at, code.len, text.at, text.len); }

/* Sets the verdict and adds a reason. */
HF_FN_ void hf_answer(hf_decision *d, hf_verdict verdict, hf_text code, hf_text text) {
  d->verdict = verdict;
  hf_reason(d, code, text);
}

HF_FN_ void hf_doc_init_(hf_doc *doc) {
  hf_line empty = {{0, 0}, 0};
  doc->out_ = empty;
  doc->depth_ = 0;
}

/* Adds something that the asker must do, and returns its properties: a document
 * in which a map is open already, and which need not be closed. id may be empty. */
HF_OUT_OF_LINE_ hf_doc *hf_obligation(hf_decision *d, hf_text id, hf_text type) {
  hf_obligation_ *o = (hf_obligation_ *)hf_alloc(sizeof(hf_obligation_));
  if (!o) return 0;
  o->next = 0;
  o->id = id;
  o->type = type;
  *d->last_obligation_ = o;
  d->last_obligation_ = &o->next;
  hf_doc_init_(&o->properties);
  hf_open_map(&o->properties);
  return &o->properties;
}

/* The document that the decision carries beside its verdict: one item is put into it. */
HF_FN_ hf_doc *hf_value_of(hf_decision *d) {
  if (!d->value_ && (d->value_ = (hf_doc *)hf_alloc(sizeof(hf_doc)))) hf_doc_init_(d->value_);
  return d->value_;
}

HF_FN_ uint8_t *hf_write_raw_(uint8_t *p, hf_text t) {
  __builtin_memcpy(p, t.at, t.len);
  return p + t.len;
}

/* Names of members with their heads. */
#define HF_RAW_(p, literal) hf_write_raw_(p, HF(literal))

HF_FN_ hf_text hf_verdict_name_(hf_verdict v) {
  switch (v) {
  case HF_ALLOW: return HF("\x65" "allow");
  case HF_TRANSFORM: return HF("\x69" "transform");
  case HF_THROTTLE: return HF("\x68" "throttle");
  case HF_REQUIRE_APPROVAL: return HF("\x70" "require_approval");
  default: return HF("\x64" "deny");
  }
}

HF_FN_ uint8_t *hf_write_reasons_(uint8_t *p, const hf_reason_ *r, uint32_t n) {
  if (!n) return p;
  p = hf_write_head_(HF_RAW_(p, "\x67" "reasons"), HF_LIST_, n);
  for (; r; r = r->next) {
    p = hf_write_text_(HF_RAW_(p, "\xa2\x64" "code"), r->code);
    p = hf_write_text_(HF_RAW_(p, "\x64" "text"), r->text);
  }
  return p;
}

HF_FN_ uint8_t *hf_write_obligations_(uint8_t *p, const hf_obligation_ *o, uint32_t n) {
  if (!n) return p;
  p = hf_write_head_(HF_RAW_(p, "\x6b" "obligations"), HF_LIST_, n);
  for (; o; o = o->next) {
    bool properties = o->properties.out_.text.len > 1;
    if (!o->type.len) hf_fail(); /* the host takes none without a type */
    *p++ = (uint8_t)(0xa1 + (o->id.len > 0) + properties);
    if (o->id.len) p = hf_write_text_(HF_RAW_(p, "\x62" "id"), o->id);
    p = hf_write_text_(HF_RAW_(p, "\x64" "type"), o->type);
    if (properties) p = hf_write_raw_(HF_RAW_(p, "\x6a" "properties"), o->properties.out_.text);
  }
  return p;
}

/* Closes what is open and returns a bound of the answer's size. */
HF_FN_ uint64_t hf_settle_(hf_decision *d, uint32_t *reasons, uint32_t *obligations) {
  uint64_t bound = 64;
  for (const hf_reason_ *r = d->reasons_; r; r = r->next, ++*reasons) bound += 24 + (uint64_t)r->code.len + r->text.len;
  for (hf_obligation_ *o = d->obligations_; o; o = o->next, ++*obligations) {
    if (o->properties.depth_ == 1) hf_close(&o->properties);
    if (o->properties.depth_) hf_fail();
    bound += 48 + (uint64_t)o->id.len + o->type.len + o->properties.out_.text.len;
  }
  if (d->value_) {
    if (d->value_->depth_ || !d->value_->out_.text.len) hf_fail();
    bound += 8 + d->value_->out_.text.len;
  }
  return bound;
}

/* Writes the answer and returns where it is, as the contract has it; 0 is a guest error. */
HF_OUT_OF_LINE_ uint64_t hf_finish_(hf_decision *d) {
  uint32_t reasons = 0, obligations = 0;
  uint64_t bound = hf_settle_(d, &reasons, &obligations);
  uint8_t *out = hf_mem_.failed || bound > 2 * HF_MAX_OUTPUT ? 0 : (uint8_t *)hf_alloc((uint32_t)bound);
  if (!out) return 0;
  uint8_t *p = out;
  *p++ = (uint8_t)(0xa1 + (d->value_ != 0) + (reasons > 0) + (obligations > 0));
  if (d->value_) p = hf_write_raw_(HF_RAW_(p, "\x65" "value"), d->value_->out_.text);
  p = hf_write_reasons_(p, d->reasons_, reasons);
  p = hf_write_raw_(HF_RAW_(p, "\x67" "verdict"), hf_verdict_name_(d->verdict));
  p = hf_write_obligations_(p, d->obligations_, obligations);
  uint32_t len = (uint32_t)(p - out);
  return hf_mem_.failed || len > HF_MAX_OUTPUT ? 0 : (uint64_t)(uintptr_t)out << 32 | len;
}

/* -- the host -- */

enum { HF_LOG_DEBUG, HF_LOG_INFO, HF_LOG_WARN, HF_LOG_ERROR };

HF_IMPORT_("log") void hf_host_log_(int32_t level, const uint8_t *at, uint32_t len);
HF_IMPORT_("now") int64_t hf_host_now_(void);
HF_IMPORT_("match") int32_t hf_host_match_(int32_t pattern, const uint8_t *at, uint32_t len);

/* Hands the host a message, which it keeps beside the record: 32 of a decision,
 * 4 KiB in all. */
HF_FN_ void hf_log(int32_t level, hf_text t) { hf_host_log_(level, t.at, t.len); }

/* The request's instant in nanoseconds since 1970. It does not move during a call. */
HF_FN_ int64_t hf_now(void) { return hf_host_now_(); }

/* Whether the manifest's pattern of that number, from 0, matches. No such
 * pattern: false. */
HF_FN_ bool hf_match(int32_t pattern, hf_text t) { return hf_host_match_(pattern, t.at, t.len) == 1; }

/* -- the policy -- */

/* Called once, before the first decision, with the package's parameters and
 * data, each of which may be absent. False refuses to load the module. */
bool policy_configure(hf_value params, hf_value data);

/* Answers one request. Nothing that it writes anywhere outlives the call. */
void policy_decide(hf_value request, hf_decision *d);

/* -- the contract -- */

void __wasm_call_ctors(void);

HF_EXPORT_("_initialize") void hf_initialize_(void) {
  hf_mem_.floor = (uint8_t *)(((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7);
  hf_mem_.end = (uint8_t *)(__builtin_wasm_memory_size(0) << 16);
  uint32_t room = (uint32_t)(hf_mem_.end - hf_mem_.floor);
  if (room < HF_ROOM) hf_grow_(HF_ROOM - room);
  __wasm_call_ctors();
}

HF_EXPORT_("holdfast_abi_v1") int32_t holdfast_abi_v1(void) { return 0; }

/* One input buffer. While configuring there is room below it for what is kept. */
HF_EXPORT_("holdfast_alloc") uint8_t *holdfast_alloc(uint32_t len) {
  if (!hf_mem_.floor || len > (uint32_t)(hf_mem_.ready ? HF_MAX_INPUT : 1 << 28)) return 0;
  hf_mem_.failed = false;
  hf_mem_.top = hf_mem_.floor;
  uint32_t below = hf_mem_.ready ? 0 : (len + HF_KEEP_EXTRA + 7) & ~7u;
  uint8_t *at = (uint8_t *)hf_alloc(below + len);
  hf_mem_.input = at ? at + below : 0;
  hf_mem_.input_len = len;
  return hf_mem_.input;
}

HF_FN_ hf_value hf_document_(const uint8_t *at, uint32_t len) {
  return at && at == hf_mem_.input && len <= hf_mem_.input_len ? hf_parse_(at, len) : 0;
}

HF_EXPORT_("holdfast_init") int32_t holdfast_init(const uint8_t *at, uint32_t len) {
  hf_value doc = hf_document_(at, len);
  hf_mem_.keep = hf_mem_.floor;
  if (!doc || hf_mem_.ready || !policy_configure(hf_get(doc, HF("params")), hf_get(doc, HF("data"))) || hf_mem_.failed) return 1;
  hf_mem_.floor = (uint8_t *)(((uintptr_t)hf_mem_.keep + 7) & ~(uintptr_t)7);
  hf_mem_.ready = true;
  return 0;
}

HF_EXPORT_("holdfast_decide") uint64_t holdfast_decide(const uint8_t *at, uint32_t len) {
  hf_value request = hf_mem_.ready ? hf_document_(at, len) : 0;
  if (!request) return 0;
  hf_decision d;
  d.verdict = HF_DENY;
  d.reasons_ = 0;
  d.last_reason_ = &d.reasons_;
  d.obligations_ = 0;
  d.last_obligation_ = &d.obligations_;
  d.value_ = 0;
  policy_decide(request, &d);
  return hf_finish_(&d);
}

#ifdef __cplusplus
} /* extern "C" */

inline bool operator==(hf_text a, hf_text b) { return hf_equal(a, b); }
inline bool operator!=(hf_text a, hf_text b) { return !hf_equal(a, b); }
/* "literal"_hf is HF("literal"). */
inline hf_text operator""_hf(const char *at, __SIZE_TYPE__ len) { return hf_text{(const uint8_t *)at, (uint32_t)len}; }
#endif

#endif
