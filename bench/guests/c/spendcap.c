/* A spend cap: the tools of a list may spend up to a cap, more needs approval. */
#define HOLDFAST_MAX_INPUT (32u << 10) /* the measuring guests take no more */
#include "holdfast.h"

enum { KEPT_BYTES = 4 << 10, LINE_BYTES = 1 << 10 };

static hf_value tools;
static int64_t cap;

/* Whether the list's texts are few enough to keep. */
static bool fits(hf_value list) {
  uint32_t bytes = 0;
  for (hf_each e = hf_items(list); hf_next(&e); bytes += hf_len(e.value))
    if (bytes > KEPT_BYTES) return false;
  return bytes <= KEPT_BYTES;
}

bool policy_configure(hf_value params, hf_value data) {
  (void)data;
  hf_value amount = hf_get(params, HF("cap")), list = hf_get(params, HF("tools"));
  tools = hf_keep(list);
  cap = hf_int(amount);
  return hf_kind_of(tools) == HF_LIST && fits(tools) && hf_kind_of(amount) == HF_INT && cap >= 0;
}

static void say(hf_decision *d, hf_verdict verdict, hf_text code, hf_text text) {
  if (text.len > LINE_BYTES) hf_fail();
  hf_answer(d, verdict, code, text);
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_text tool = hf_text_of(hf_path(request, HF("resource.id")));
  hf_value context = hf_get(request, HF("context"));
  hf_value amount = hf_path(context, HF("arguments.amount"));
  hf_value spent = hf_get(context, HF("spent"));
  hf_line line = {0};
  if (!hf_lists(tools, tool)) {
    hf_add(&line, tool);
    hf_add(&line, HF(" is not an allowed tool"));
    return say(d, HF_DENY, HF("tool_denied"), line.text);
  }
  if (hf_kind_of(amount) != HF_INT || hf_int(amount) < 0)
    return say(d, HF_DENY, HF("amount_invalid"), HF("the amount is not a whole number from 0"));
  if (spent && (hf_kind_of(spent) != HF_INT || hf_int(spent) < 0))
    return say(d, HF_DENY, HF("spent_invalid"), HF("what was spent is not a whole number from 0"));

  bool within = hf_int(amount) <= cap - hf_int(spent);
  hf_add_int(&line, hf_int(amount));
  hf_add(&line, HF(" on top of "));
  hf_add_int(&line, hf_int(spent));
  hf_add(&line, within ? HF(" is within ") : HF(" is more than "));
  hf_add_int(&line, cap);
  if (within) say(d, HF_ALLOW, HF("within_cap"), line.text);
  else say(d, HF_REQUIRE_APPROVAL, HF("over_cap"), line.text);
}
