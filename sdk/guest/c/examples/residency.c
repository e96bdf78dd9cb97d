/* Where data of a class may go. */
#include "holdfast.h"

static hf_value allowed;         /* class to its regions */
static hf_value routes;          /* region to how to go there */
static hf_value default_classes; /* a list of one */

static bool texts(hf_value list) {
  for (hf_each e = hf_items(list); hf_next(&e);)
    if (hf_kind_of(e.value) != HF_TEXT) return false;
  return hf_kind_of(list) == HF_LIST;
}

bool policy_configure(hf_value params, hf_value data) {
  (void)data;
  allowed = hf_keep(hf_get(params, HF("allowed")));
  routes = hf_keep(hf_get(params, HF("routes")));
  hf_value class_ = hf_get(params, HF("default_class"));
  if (hf_kind_of(allowed) != HF_MAP || hf_kind_of(routes) != HF_MAP || hf_kind_of(class_) != HF_TEXT) return false;
  for (hf_each e = hf_items(allowed); hf_next(&e);)
    if (!texts(e.value)) return false;
  for (hf_each e = hf_items(routes); hf_next(&e);)
    if (hf_kind_of(e.value) != HF_MAP) return false;

  hf_doc list = {0};
  hf_open_list(&list);
  hf_put_value(&list, class_);
  hf_close(&list);
  default_classes = hf_keep(hf_as_value(&list));
  return default_classes != 0;
}

static bool allows(hf_text class_, hf_text region) {
  hf_value regions = hf_get(allowed, class_);
  return hf_lists(regions, region) || hf_lists(regions, HF("*"));
}

/* The first class that does not allow the region; absent when all do. */
static hf_value refusing(hf_value classes, hf_text region) {
  for (hf_each e = hf_items(classes); hf_next(&e);)
    if (!allows(hf_text_of(e.value), region)) return e.value;
  return 0;
}

static bool reachable(hf_value classes, hf_text region) { return hf_get(routes, region) && !refusing(classes, region); }

/* Where the request is sent instead; false when there is no such region. */
static bool elsewhere(hf_value request, hf_value classes, hf_text *to) {
  hf_value home = hf_path(request, HF("subject.properties.region"));
  *to = hf_text_of(home);
  if (home && hf_kind_of(home) == HF_TEXT && reachable(classes, *to)) return true;
  hf_each first = hf_items(classes);
  hf_next(&first);
  for (hf_each e = hf_items(hf_get(allowed, hf_text_of(first.value))); hf_next(&e);) {
    *to = hf_text_of(e.value);
    if (!hf_equal(*to, HF("*")) && reachable(classes, *to)) return true;
  }
  return false;
}

static void deny(hf_decision *d, hf_text code, hf_text text) { hf_answer(d, HF_DENY, code, text); }

static void add_all(hf_line *line, hf_value classes) {
  hf_text between = HF("");
  for (hf_each e = hf_items(classes); hf_next(&e); between = HF(", ")) {
    hf_add(line, between);
    hf_add(line, hf_text_of(e.value));
  }
}

static void reroute(hf_decision *d, hf_text region, hf_text class_, hf_text to) {
  hf_line line = {0};
  hf_add(&line, region);
  hf_add(&line, HF(" is not allowed for "));
  hf_add(&line, class_);
  hf_add(&line, HF(", "));
  hf_add(&line, to);
  hf_add(&line, HF(" is"));
  hf_answer(d, HF_TRANSFORM, HF("rerouted"), line.text);
  hf_doc *properties = hf_obligation(d, HF("residency"), HF("route"));
  hf_put_text(hf_key(properties, HF("region")), to);
  hf_put_value(hf_key(properties, HF("target")), hf_get(routes, to));
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_value region = hf_path(request, HF("resource.properties.region"));
  hf_value classes = hf_path(request, HF("context.data_classes"));
  if (!classes) classes = default_classes;
  if (!texts(classes) || !hf_len(classes)) return deny(d, HF("class_invalid"), HF("the data classes are not a list of names"));
  hf_line line = {0};
  for (hf_each e = hf_items(classes); hf_next(&e);) {
    if (hf_get(allowed, hf_text_of(e.value))) continue;
    hf_add(&line, HF("no rule for class "));
    hf_add(&line, hf_text_of(e.value));
    return deny(d, HF("class_unknown"), line.text);
  }
  if (hf_kind_of(region) != HF_TEXT) return deny(d, HF("region_unknown"), HF("the resource does not say where it is"));

  hf_value not_for = refusing(classes, hf_text_of(region));
  hf_text to;
  if (!not_for) {
    hf_add(&line, hf_text_of(region));
    hf_add(&line, HF(" is allowed for "));
    add_all(&line, classes);
    return hf_answer(d, HF_ALLOW, HF("in_region"), line.text);
  }
  if (elsewhere(request, classes, &to)) return reroute(d, hf_text_of(region), hf_text_of(not_for), to);
  hf_add(&line, HF("no region with a route is allowed for "));
  add_all(&line, classes);
  deny(d, HF("no_region"), line.text);
}
