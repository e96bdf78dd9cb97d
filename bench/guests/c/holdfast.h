/* holdfast.h: what a holdfast_v1 guest in C is written against. Freestanding:
 * it needs no libc and allocates nothing. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* A value is a view into the CBOR document of the call that runs, which was
 * checked before. NULL is absent, and every function takes an absent value, or
 * one of another kind, and returns the zero of its result. */
typedef const uint8_t *hf_value;

typedef enum { HF_ABSENT, HF_NULL, HF_BOOL, HF_INT, HF_FLOAT, HF_TEXT, HF_LIST, HF_MAP } hf_kind;

/* UTF-8 without a final zero, valid as long as the document. */
typedef struct {
  const uint8_t *at;
  uint32_t len;
} hf_text;
#define HF(literal) ((hf_text){(const uint8_t *)(literal), sizeof(literal) - 1})

hf_kind hf_kind_of(hf_value v);
bool hf_bool(hf_value v);
int64_t hf_int(hf_value v);
hf_text hf_text_of(hf_value v);
/* Bytes of a text, items of a list or members of a map. */
uint32_t hf_len(hf_value v);
/* The member of a map. */
hf_value hf_get(hf_value map, hf_text key);
/* The first item of a list; hf_next returns the one behind an item. There are hf_len of them. */
hf_value hf_first(hf_value list);
hf_value hf_next(hf_value item);
/* A copy of the value that outlives the call: for configuration. NULL when there is no room. */
hf_value hf_keep(hf_value v);

bool hf_same(hf_text a, hf_text b);

/* A line of text in the making. One that does not fit makes the decision a guest error. */
enum { HF_LINE_BYTES = 1024 };
typedef struct {
  uint8_t at[HF_LINE_BYTES];
  uint32_t len;
  bool full;
} hf_line;

void hf_add(hf_line *line, hf_text t);
void hf_add_int(hf_line *line, int64_t n);

/* A decision with one reason. */
typedef struct {
  hf_text verdict; /* deny, require_approval, throttle, transform or allow */
  hf_text code;
  hf_line text;
} hf_decision;

/* The policy's part. configure is called once, before the first decision;
 * false refuses to load the module. */
bool policy_configure(hf_value params, hf_value data);
void policy_decide(hf_value request, hf_decision *d);
