/* A spend cap: the tools of a list may spend up to a cap, more needs approval. */
#include "holdfast.h"

static hf_value tools;
static int64_t cap;

bool policy_configure(hf_value params, hf_value data) {
  (void)data;
  hf_value amount = hf_get(params, HF("cap"));
  tools = hf_keep(hf_get(params, HF("tools")));
  cap = hf_int(amount);
  return hf_kind_of(tools) == HF_LIST && hf_kind_of(amount) == HF_INT && cap >= 0;
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
    return hf_answer(d, HF_DENY, HF("tool_denied"), line.text);
  }
  if (hf_kind_of(amount) != HF_INT || hf_int(amount) < 0)
    return hf_answer(d, HF_DENY, HF("amount_invalid"), HF("the amount is not a whole number from 0"));
  if (spent && (hf_kind_of(spent) != HF_INT || hf_int(spent) < 0))
    return hf_answer(d, HF_DENY, HF("spent_invalid"), HF("what was spent is not a whole number from 0"));

  bool within = hf_int(amount) <= cap - hf_int(spent);
  hf_add_int(&line, hf_int(amount));
  hf_add(&line, HF(" on top of "));
  hf_add_int(&line, hf_int(spent));
  hf_add(&line, within ? HF(" is within ") : HF(" is more than "));
  hf_add_int(&line, cap);
  hf_answer(d, within ? HF_ALLOW : HF_REQUIRE_APPROVAL, within ? HF("within_cap") : HF("over_cap"), line.text);
}
