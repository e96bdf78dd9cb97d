/* Who may call which tool, through how many delegations. */
#include "holdfast.h"

static hf_value roles; /* role to its tools */
static hf_value users; /* subject to its roles */
static int64_t max_delegation;

static bool texts(hf_value list) {
  for (hf_each e = hf_items(list); hf_next(&e);)
    if (hf_kind_of(e.value) != HF_TEXT) return false;
  return hf_kind_of(list) == HF_LIST;
}

static bool lists_of_texts(hf_value map) {
  for (hf_each e = hf_items(map); hf_next(&e);)
    if (!texts(e.value)) return false;
  return hf_kind_of(map) == HF_MAP;
}

bool policy_configure(hf_value params, hf_value data) {
  hf_value max = hf_get(params, HF("max_delegation"));
  max_delegation = hf_int(max);
  roles = hf_keep(hf_get(data, HF("roles")));
  users = hf_keep(hf_get(data, HF("users")));
  return lists_of_texts(roles) && lists_of_texts(users) && hf_kind_of(max) == HF_INT && max_delegation >= 0;
}

typedef enum { NOT_GRANTED, BY_NAME, BY_STAR } grant;

static grant granted(hf_text subject, hf_text tool) {
  for (hf_each role = hf_items(hf_get(users, subject)); hf_next(&role);)
    for (hf_each e = hf_items(hf_get(roles, hf_text_of(role.value))); hf_next(&e);) {
      hf_text listed = hf_text_of(e.value);
      if (hf_equal(listed, tool)) return BY_NAME;
      if (hf_equal(listed, HF("*"))) return BY_STAR;
    }
  return NOT_GRANTED;
}

/* A decision whose text is a, b and c, one behind the other. */
static void say(hf_decision *d, hf_verdict verdict, hf_text code, hf_text a, hf_text b, hf_text c) {
  hf_line line = {0};
  hf_add(&line, a);
  hf_add(&line, b);
  hf_add(&line, c);
  hf_answer(d, verdict, code, line.text);
}

static void not_a_list(hf_decision *d) { hf_answer(d, HF_DENY, HF("delegation_invalid"), HF("the delegation is not a list of names")); }

static void too_deep(hf_decision *d, uint32_t n) {
  hf_line line = {0};
  hf_add_int(&line, n);
  hf_add(&line, HF(" delegations, at most "));
  hf_add_int(&line, max_delegation);
  hf_answer(d, HF_DENY, HF("delegation_too_deep"), line.text);
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_value resource = hf_get(request, HF("resource"));
  hf_text type = hf_text_of(hf_get(resource, HF("type"))), tool = hf_text_of(hf_get(resource, HF("id")));
  hf_text subject = hf_text_of(hf_path(request, HF("subject.id")));
  hf_value delegation = hf_path(request, HF("context.delegation"));

  if (!hf_equal(type, HF("tool"))) return say(d, HF_DENY, HF("not_a_tool"), HF("a "), type, HF(" is not a tool"));
  if (!hf_match(0, tool)) return hf_answer(d, HF_DENY, HF("tool_name_invalid"), HF("the name of the tool is not valid"));
  if (delegation && hf_kind_of(delegation) != HF_LIST) return not_a_list(d);
  if (hf_len(delegation) > max_delegation) return too_deep(d, hf_len(delegation));
  grant by = granted(subject, tool);
  if (by == NOT_GRANTED) return say(d, HF_DENY, HF("tool_not_granted"), subject, HF(" may not call "), tool);

  for (hf_each e = hf_items(delegation); hf_next(&e);) {
    hf_text name = hf_text_of(e.value);
    if (hf_kind_of(e.value) != HF_TEXT) return not_a_list(d);
    if (granted(name, tool) == NOT_GRANTED) return say(d, HF_DENY, HF("delegator_not_granted"), name, HF(", who delegated, may not call "), tool);
  }
  if (by == BY_STAR) {
    hf_line line = {0};
    hf_add(&line, subject);
    hf_add(&line, HF(" used a role that may call everything"));
    hf_log(HF_LOG_INFO, line.text);
  }
  say(d, HF_ALLOW, HF("granted"), subject, HF(" may call "), tool);
}
