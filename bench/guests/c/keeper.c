/* Tries to keep a counter, a random pool and a secret across calls, in memory
 * and in a global, and answers what it found of the calls before. */
#include "holdfast.h"

enum { POOL_WORDS = 4096, STEP = 512 };

static uint32_t calls;
static __attribute__((address_space(1))) uint32_t calls_in_global; /* a WebAssembly global, not memory */
static uint32_t pool[POOL_WORDS];
static uint8_t secret[64];
static uint32_t secret_len;
static uint32_t first_pages;

bool policy_configure(hf_value params, hf_value data) {
  (void)params, (void)data;
  first_pages = __builtin_wasm_memory_size(0);
  return true;
}

static uint32_t stir(uint32_t seed) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < POOL_WORDS; i += STEP) {
    found |= pool[i];
    pool[i] = seed += pool[i] * 747796405u + 2891336453u;
  }
  return found;
}

void policy_decide(hf_value request, hf_decision *d) {
  hf_text id = hf_text_of(hf_path(request, HF("subject.id")));
  uint32_t pages = __builtin_wasm_memory_size(0) - first_pages;
  hf_line line = {0};
  hf_add(&line, HF("calls "));
  hf_add_int(&line, (int64_t)calls++ + calls_in_global++);
  hf_add(&line, HF(", pages "));
  hf_add_int(&line, pages);
  hf_add(&line, HF(", pool "));
  hf_add_int(&line, stir(id.len));
  hf_add(&line, HF(", secret "));
  hf_text known = {secret, secret_len};
  hf_add(&line, known);
  for (secret_len = 0; secret_len < id.len && secret_len < sizeof secret; secret_len++) secret[secret_len] = id.at[secret_len];
  if (hf_equal(id, HF("grow"))) __builtin_wasm_memory_grow(0, 1);
  hf_answer(d, HF_DENY, HF("kept"), line.text);
}
