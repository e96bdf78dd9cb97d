/* Does what context.do says, so that the tests reach every part of the SDK. */
#include "holdfast.h"

static hf_value params;

bool policy_configure(hf_value given, hf_value data) {
  (void)data;
  params = hf_keep(given);
  return !hf_get(given, HF("refuse")) && params;
}

static void sort(hf_doc *out, hf_value keys) {
  int64_t i = 0;
  hf_open_map(out);
  for (hf_each e = hf_items(keys); hf_next(&e);) hf_put_int(hf_key(out, hf_text_of(e.value)), i++);
  hf_close(out);
}

static void members(hf_doc *out, hf_value map) {
  hf_open_map(out);
  for (hf_each e = hf_items(map); hf_next(&e);) {
    hf_open_list(hf_key(out, e.key));
    hf_put_value(out, e.value);
    hf_put_int(out, hf_len(e.value));
    hf_close(out);
  }
  hf_close(out);
}

static void nest(hf_doc *out, hf_value it) {
  hf_open_map(out);
  hf_open_list(hf_key(out, HF("later")));
  hf_open_map(out);
  hf_close(out);
  hf_put_null(out);
  hf_put_bool(out, true);
  hf_open_list(out);
  hf_close(out);
  hf_put_int(out, -1);
  hf_close(out);
  hf_open_map(hf_key(out, HF("a")));
  hf_put_value(hf_key(out, HF("zz")), it);
  hf_put_float(hf_key(out, HF("b")), 0.5);
  hf_put_bool(hf_key(out, HF("a")), false);
  hf_close(out);
  hf_put_text(hf_key(out, HF("")), HF("größer"));
  hf_close(out);
}

static void say(hf_decision *d, hf_value it, int64_t times) {
  hf_line line = {0};
  for (; times > 0; times--) hf_add(&line, hf_text_of(it));
  hf_add_int(&line, hf_int(it));
  hf_answer(d, HF_DENY, HF("said"), line.text);
}

static void reasons(hf_decision *d, hf_value it, int64_t times) {
  for (int64_t i = 0; i < times; i++) {
    hf_line line = {0};
    hf_add_int(&line, i);
    hf_add(&line, hf_text_of(it));
    hf_reason(d, HF("one"), line.text);
    hf_obligation(d, HF(""), HF("first"));
    hf_put_int(hf_key(hf_obligation(d, HF("größe"), HF("second")), HF("n")), i);
  }
}

static void kind(hf_decision *d, hf_value it) {
  const hf_text names[] = {HF("absent"), HF("null"), HF("bool"), HF("int"), HF("float"), HF("text"), HF("list"), HF("map")};
  hf_line line = {0};
  hf_add(&line, names[hf_kind_of(it)]);
  hf_add(&line, HF(" "));
  hf_add_int(&line, hf_len(it));
  if (hf_bool(it)) hf_add(&line, HF(" true"));
  hf_answer(d, HF_ALLOW, HF("kind"), line.text);
}

static void compare(hf_doc *out, hf_value a, hf_value b) {
  bool both = hf_kind_of(a) == HF_TEXT && hf_kind_of(b) == HF_TEXT;
  hf_open_list(out);
  hf_put_bool(out, both && hf_equal_fold(hf_text_of(a), hf_text_of(b)));
  hf_put_bool(out, both && hf_equal(hf_text_of(a), hf_text_of(b)));
  hf_put_bool(out, hf_equal(hf_text_of(a), HF("größer")));
  hf_close(out);
}

static void parts(hf_doc *out, hf_text t, hf_text part) {
  hf_open_list(out);
  hf_put_bool(out, hf_has_prefix(t, part));
  hf_put_bool(out, hf_has_suffix(t, part));
  hf_put_bool(out, hf_contains(t, part));
  hf_close(out);
}

static void allocate(hf_doc *out, uint32_t n) {
  uint8_t *bytes = (uint8_t *)hf_alloc(n);
  int64_t sum = 0;
  for (uint32_t i = 0; bytes && i < n; i++) bytes[i] = 7;
  for (uint32_t i = 0; bytes && i < n; i++) sum += bytes[i];
  hf_put_int(out, sum);
}

static void kept(hf_decision *d) {
  hf_line line = {0};
  hf_text between = HF("");
  for (hf_each e = hf_items(hf_get(params, HF("words"))); hf_next(&e); between = HF(" ")) {
    hf_add(&line, between);
    hf_add(&line, hf_text_of(e.value));
  }
  hf_answer(d, HF_ALLOW, HF("kept"), line.text);
  hf_put_value(hf_value_of(d), params);
}

static void host(hf_doc *out, hf_text t) {
  hf_line line = {0};
  hf_add(&line, HF("at "));
  hf_add_int(&line, hf_now());
  hf_log(HF_LOG_WARN, line.text);
  hf_open_list(out);
  for (int32_t i = 0; i < 3; i++) hf_put_bool(out, hf_match(i, t));
  hf_close(out);
}

static void all_of(hf_decision *d, hf_value request) {
  const hf_text paths[] = {HF("point"), HF("id"), HF("subject.type"), HF("subject.id"), HF("action.name"), HF("resource.type"), HF("resource.id")};
  hf_line line = {0};
  for (uint32_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    hf_add(&line, hf_text_of(hf_path(request, paths[i])));
    hf_add(&line, HF("|"));
  }
  hf_answer(d, HF_ALLOW, HF("request"), line.text);
  hf_doc *out = hf_value_of(d);
  hf_open_list(out);
  hf_put_bool(out, hf_kind_of(hf_path(request, HF("subject.properties.a"))) == HF_INT);
  hf_put_bool(out, hf_path(request, HF("resource.properties.a")) != 0);
  hf_put_bool(out, hf_performs(request, HF("redact")));
  hf_put_bool(out, hf_kind_of(hf_path(request, HF("context.it.x"))) == HF_NULL);
  hf_put_bool(out, hf_get(request, HF("document")) != 0);
  hf_close(out);
}

/* A document that is not whole, or not one that the contract has. */
static void wrong(hf_decision *d, hf_text how, hf_value it, int64_t times) {
  hf_doc *out = hf_value_of(d);
  if (hf_equal(how, HF("not closed"))) hf_open_list(out);
  if (hf_equal(how, HF("no value"))) hf_open_map(out), hf_key(out, HF("a")), hf_close(out);
  if (hf_equal(how, HF("no key"))) hf_open_map(out), hf_put_null(out), hf_close(out);
  if (hf_equal(how, HF("key of a list"))) hf_open_list(out), hf_key(out, HF("a")), hf_close(out);
  if (hf_equal(how, HF("two"))) hf_put_null(out), hf_put_null(out);
  if (hf_equal(how, HF("closed twice"))) hf_open_list(out), hf_close(out), hf_close(out);
  if (hf_equal(how, HF("no type"))) hf_put_null(out), hf_obligation(d, HF("id"), HF(""));
  if (hf_equal(how, HF("open property"))) hf_put_null(out), hf_open_list(hf_key(hf_obligation(d, HF(""), HF("a")), HF("b")));
  if (hf_equal(how, HF("failed"))) hf_put_null(out), hf_fail();
  if (hf_equal(how, HF("deep"))) {
    for (int64_t i = 0; i < times; i++) hf_open_list(out);
    if (it) hf_put_value(out, it);
    for (int64_t i = 0; i < times; i++) hf_close(out);
  }
  if (hf_equal(how, HF("cut"))) {
    hf_text t = hf_text_of(it);
    t.len = t.len < times ? t.len : (uint32_t)times;
    hf_put_text(out, t);
  }
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_value context = hf_get(request, HF("context")), it = hf_get(context, HF("it")), by = hf_get(context, HF("by"));
  hf_value times = hf_get(context, HF("times"));
  hf_text what = hf_text_of(hf_get(context, HF("do")));
  int64_t n = times ? hf_int(times) : 1, ns;

  if (hf_equal(what, HF("say"))) return say(d, it, n);
  if (hf_equal(what, HF("reasons"))) return reasons(d, it, n);
  if (what.len == 0 || hf_equal(what, HF("nothing"))) return;
  if (hf_equal(what, HF("kind"))) return kind(d, it);
  if (hf_equal(what, HF("kept"))) return kept(d);
  if (hf_equal(what, HF("request"))) return all_of(d, request);
  if (hf_equal(what, HF("wrong"))) return wrong(d, hf_text_of(by), it, n);
  hf_doc *out = hf_value_of(d);
  if (hf_equal(what, HF("time"))) return hf_time(hf_text_of(it), &ns) ? hf_put_int(out, ns) : hf_put_null(out);
  if (hf_equal(what, HF("copies"))) {
    hf_open_list(out);
    for (; n > 0; n--) hf_put_value(out, it);
    return hf_close(out);
  }
  if (hf_equal(what, HF("float"))) return hf_put_float(out, hf_kind_of(it) == HF_INT || hf_kind_of(it) == HF_FLOAT ? hf_float(it) : -1);
  if (hf_equal(what, HF("divide"))) return hf_put_float(out, hf_float(it) / hf_float(by));
  if (hf_equal(what, HF("sort"))) return sort(out, it);
  if (hf_equal(what, HF("members"))) return members(out, it);
  if (hf_equal(what, HF("nest"))) return nest(out, it);
  if (hf_equal(what, HF("case"))) return compare(out, it, by);
  if (hf_equal(what, HF("parts"))) return parts(out, hf_text_of(it), hf_text_of(by));
  if (hf_equal(what, HF("allocate"))) return allocate(out, (uint32_t)n);
  if (hf_equal(what, HF("pages"))) return hf_put_int(out, __builtin_wasm_memory_size(0));
  if (hf_equal(what, HF("host"))) return host(out, hf_text_of(it));
  hf_put_value(out, hf_equal(what, HF("copy")) ? it : 0);
}
