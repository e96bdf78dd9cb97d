// How much may be spent by the tools of a list, in a window of time.
#include "holdfast.h"

namespace {

constexpr int64_t second = 1'000'000'000, hour = 3600 * second;

struct rules {
  hf_value tools;
  hf_text currency;
  int64_t cap, approval_over, window;
} limits;

// A text made of texts and numbers.
struct text {
  hf_line line = {};

  template <typename... T> explicit text(T... parts) { (add(parts), ...); }
  void add(hf_text t) { hf_add(&line, t); }
  void add(int64_t n) { hf_add_int(&line, n); }
  operator hf_text() const { return line.text; }
};

// Reads a whole number of at least "least"; false when it is not one.
bool whole(hf_value v, int64_t *n, int64_t least = 0) {
  *n = hf_int(v);
  return hf_kind_of(v) == HF_INT && *n >= least;
}

bool all_texts(hf_value list) {
  for (hf_each e = hf_items(list); hf_next(&e);)
    if (hf_kind_of(e.value) != HF_TEXT) return false;
  return hf_kind_of(list) == HF_LIST;
}

void deny(hf_decision *d, hf_text code, hf_text why) { hf_answer(d, HF_DENY, code, why); }

// A payment whose parts have been checked.
struct payment {
  int64_t amount, spent;
  int64_t window_left; // nanoseconds; 0 without a window

  text sum(hf_text is) const { return text(amount, " on top of "_hf, spent, is, limits.cap, " "_hf, limits.currency); }

  void over_cap(hf_decision *d) const {
    hf_answer(d, window_left ? HF_THROTTLE : HF_DENY, "over_cap"_hf, sum(" is more than "_hf));
    if (window_left) hf_put_int(hf_key(hf_obligation(d, ""_hf, "retry"_hf), "after_seconds"_hf), (window_left + second - 1) / second);
  }

  void decide(hf_decision *d) const {
    const int64_t left = limits.cap - spent;
    if (amount > left) return over_cap(d);
    if (amount > limits.approval_over) {
      text why(amount, " is more than "_hf, limits.approval_over, " "_hf, limits.currency);
      return hf_answer(d, HF_REQUIRE_APPROVAL, "needs_approval"_hf, why);
    }
    hf_answer(d, HF_ALLOW, "within_cap"_hf, sum(" is within "_hf));
    hf_doc *value = hf_value_of(d);
    hf_open_map(value);
    hf_put_int(hf_key(value, "remaining"_hf), left - amount);
    hf_close(value);
  }
};

} // namespace

bool policy_configure(hf_value params, hf_value) {
  hf_value currency = hf_get(params, "currency"_hf);
  int64_t hours;
  limits.tools = hf_keep(hf_get(params, "tools"_hf));
  limits.currency = hf_keep_text(hf_text_of(currency));
  bool ok = whole(hf_get(params, "cap"_hf), &limits.cap) && whole(hf_get(params, "approval_over"_hf), &limits.approval_over) &&
            whole(hf_get(params, "window_hours"_hf), &hours, 1) && hours <= 8760;
  limits.window = hours * hour;
  return ok && all_texts(limits.tools) && hf_kind_of(currency) == HF_TEXT;
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_text tool = hf_text_of(hf_path(request, "resource.id"_hf));
  hf_value context = hf_get(request, "context"_hf), arguments = hf_get(context, "arguments"_hf);
  hf_value currency = hf_get(arguments, "currency"_hf), spent = hf_get(context, "spent"_hf), start = hf_get(context, "window_start"_hf);
  payment p = {};

  if (!hf_lists(limits.tools, tool)) return hf_answer(d, HF_ALLOW, "not_a_payment"_hf, text(tool, " moves no money"_hf));
  if (!whole(hf_get(arguments, "amount"_hf), &p.amount)) return deny(d, "amount_invalid"_hf, "the amount is not a whole number from 0"_hf);
  if (hf_kind_of(currency) != HF_TEXT || !hf_equal_fold(hf_text_of(currency), limits.currency))
    return deny(d, "currency_unknown"_hf, text("the cap is in "_hf, limits.currency));
  if (!whole(spent, &p.spent) && spent) return deny(d, "spent_invalid"_hf, "what was spent is not a whole number from 0"_hf);
  if (start) {
    int64_t from, now = hf_now();
    if (!hf_time(hf_text_of(start), &from)) return deny(d, "window_invalid"_hf, "the start of the window is not a time"_hf);
    if (from > now) return deny(d, "window_invalid"_hf, "the window begins in the future"_hf);
    uint64_t passed = static_cast<uint64_t>(now) - static_cast<uint64_t>(from);
    bool over = passed >= static_cast<uint64_t>(limits.window);
    if (over) p.spent = 0;
    p.window_left = limits.window - (over ? 0 : static_cast<int64_t>(passed));
  }
  p.decide(d);
}
