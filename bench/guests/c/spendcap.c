/* A spend cap: the tools of a list may spend up to a cap, more needs approval. */
#include "holdfast.h"

static hf_value tools;
static int64_t cap;

bool policy_configure(hf_value params, hf_value data) {
  hf_value amount = hf_get(params, HF("cap"));
  tools = hf_keep(hf_get(params, HF("tools")));
  cap = hf_int(amount);
  return hf_kind_of(tools) == HF_LIST && hf_kind_of(amount) == HF_INT && cap >= 0;
}

static bool listed(hf_text tool) {
  hf_value item = hf_first(tools);
  for (uint32_t n = hf_len(tools); n > 0; n--, item = hf_next(item))
    if (hf_kind_of(item) == HF_TEXT && hf_same(hf_text_of(item), tool)) return true;
  return false;
}

static void say(hf_decision *d, hf_text verdict, hf_text code, hf_text text) {
  d->verdict = verdict;
  d->code = code;
  hf_add(&d->text, text);
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_text tool = hf_text_of(hf_get(hf_get(request, HF("resource")), HF("id")));
  hf_value context = hf_get(request, HF("context"));
  hf_value amount = hf_get(hf_get(context, HF("arguments")), HF("amount"));
  hf_value spent = hf_get(context, HF("spent"));
  if (!listed(tool)) {
    hf_add(&d->text, tool);
    return say(d, HF("deny"), HF("tool_denied"), HF(" is not an allowed tool"));
  }
  if (hf_kind_of(amount) != HF_INT || hf_int(amount) < 0)
    return say(d, HF("deny"), HF("amount_invalid"), HF("the amount is not a whole number from 0"));
  if (spent && (hf_kind_of(spent) != HF_INT || hf_int(spent) < 0))
    return say(d, HF("deny"), HF("spent_invalid"), HF("what was spent is not a whole number from 0"));

  bool within = hf_int(amount) <= cap - hf_int(spent);
  hf_add_int(&d->text, hf_int(amount));
  hf_add(&d->text, HF(" on top of "));
  hf_add_int(&d->text, hf_int(spent));
  if (within) say(d, HF("allow"), HF("within_cap"), HF(" is within "));
  else say(d, HF("require_approval"), HF("over_cap"), HF(" is more than "));
  hf_add_int(&d->text, cap);
}
