/* How much may be spent by the tools of a list, in a window of time. */
#include "holdfast.h"

static hf_value tools;
static hf_text currency;
static int64_t cap, approval_over, window_hours;

static bool whole(hf_value v) { return hf_kind_of(v) == HF_INT && hf_int(v) >= 0; }

bool policy_configure(hf_value params, hf_value data) {
  (void)data;
  hf_value limit = hf_get(params, HF("cap")), over = hf_get(params, HF("approval_over"));
  hf_value hours = hf_get(params, HF("window_hours")), name = hf_get(params, HF("currency"));
  tools = hf_keep(hf_get(params, HF("tools")));
  currency = hf_keep_text(hf_text_of(name));
  cap = hf_int(limit);
  approval_over = hf_int(over);
  window_hours = hf_int(hours);
  for (hf_each e = hf_items(tools); hf_next(&e);)
    if (hf_kind_of(e.value) != HF_TEXT) return false;
  return hf_kind_of(tools) == HF_LIST && hf_kind_of(name) == HF_TEXT && whole(limit) && whole(over) && whole(hours) && window_hours >= 1 &&
         window_hours <= 8760;
}

static void deny(hf_decision *d, hf_text code, hf_text text) { hf_answer(d, HF_DENY, code, text); }

static void add_currency(hf_line *line, hf_text before, int64_t n) {
  hf_add(line, before);
  hf_add_int(line, n);
  hf_add(line, HF(" "));
  hf_add(line, currency);
}

/* The text "AMOUNT on top of SPENT is ... CAP CURRENCY". */
static hf_text sum(int64_t amount, int64_t spent, hf_text is) {
  hf_line line = {0};
  hf_add_int(&line, amount);
  hf_add(&line, HF(" on top of "));
  hf_add_int(&line, spent);
  add_currency(&line, is, cap);
  return line.text;
}

/* More than is left, of which "left" nanoseconds of the window; 0 without a window. */
static void over_cap(hf_decision *d, int64_t amount, int64_t spent, int64_t left) {
  hf_answer(d, left ? HF_THROTTLE : HF_DENY, HF("over_cap"), sum(amount, spent, HF(" is more than ")));
  if (left) hf_put_int(hf_key(hf_obligation(d, HF(""), HF("retry")), HF("after_seconds")), (left + 999999999) / 1000000000);
}

static void decide(hf_decision *d, int64_t amount, int64_t spent, int64_t left) {
  if (amount > cap - spent) return over_cap(d, amount, spent, left);
  if (amount > approval_over) {
    hf_line line = {0};
    hf_add_int(&line, amount);
    add_currency(&line, HF(" is more than "), approval_over);
    return hf_answer(d, HF_REQUIRE_APPROVAL, HF("needs_approval"), line.text);
  }
  hf_answer(d, HF_ALLOW, HF("within_cap"), sum(amount, spent, HF(" is within ")));
  hf_doc *value = hf_value_of(d);
  hf_open_map(value);
  hf_put_int(hf_key(value, HF("remaining")), cap - spent - amount);
  hf_close(value);
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_value tool = hf_path(request, HF("resource.id"));
  hf_value context = hf_get(request, HF("context")), arguments = hf_get(context, HF("arguments"));
  hf_value amount = hf_get(arguments, HF("amount")), in = hf_get(arguments, HF("currency"));
  hf_value spent = hf_get(context, HF("spent")), start = hf_get(context, HF("window_start"));
  if (!hf_lists(tools, hf_text_of(tool))) {
    hf_line line = {0};
    hf_add(&line, hf_text_of(tool));
    hf_add(&line, HF(" moves no money"));
    return hf_answer(d, HF_ALLOW, HF("not_a_payment"), line.text);
  }
  if (!whole(amount)) return deny(d, HF("amount_invalid"), HF("the amount is not a whole number from 0"));
  if (hf_kind_of(in) != HF_TEXT || !hf_equal_fold(hf_text_of(in), currency)) {
    hf_line line = {0};
    hf_add(&line, HF("the cap is in "));
    hf_add(&line, currency);
    return deny(d, HF("currency_unknown"), line.text);
  }
  if (spent && !whole(spent)) return deny(d, HF("spent_invalid"), HF("what was spent is not a whole number from 0"));
  if (!start) return decide(d, hf_int(amount), hf_int(spent), 0);

  int64_t from, now = hf_now(), window = window_hours * 3600 * 1000000000;
  if (!hf_time(hf_text_of(start), &from)) return deny(d, HF("window_invalid"), HF("the start of the window is not a time"));
  if (from > now) return deny(d, HF("window_invalid"), HF("the window begins in the future"));
  uint64_t passed = (uint64_t)now - (uint64_t)from;
  if (passed >= (uint64_t)window) return decide(d, hf_int(amount), 0, window);
  decide(d, hf_int(amount), hf_int(spent), window - (int64_t)passed);
}
