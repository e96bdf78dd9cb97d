// A policy as a C author would write one, for the engine's measurements: it
// splits "key=value;" pairs, looks the subject's role up and answers with text.
// clang-19 --target=wasm32 -O2 -nostdlib -Wl,--no-entry -Wl,-z,stack-size=16384 -o cguest.wasm cguest.c
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
#define EXPORT(name) __attribute__((export_name(#name)))

struct text { const u8 *at; u32 length; };
struct pair { struct text key, value; };
struct rule { const char *role, *action, *resource; };

static const struct rule rules[] = {
    {"admin", "delete", "record"}, {"admin", "write", "record"}, {"admin", "read", "record"},
    {"clerk", "write", "record"},  {"clerk", "read", "record"},  {"auditor", "read", "journal"},
    {"auditor", "read", "record"}, {"agent", "call", "tool"},    {"agent", "read", "record"},
};

static u8 arena[16384];
static u32 used;

// The arena begins anew when it is full, so that the guest also lasts without a restore.
static void *take(u32 size) {
  u32 at = (used + 15) & ~15u;
  if (at + size > sizeof arena) at = 0;
  used = at + size;
  return arena + at;
}

static int same(struct text a, const char *b) {
  u32 i = 0;
  for (; i < a.length && b[i]; i++)
    if (a.at[i] != (u8)b[i]) return 0;
  return i == a.length && !b[i];
}

static u32 split(const u8 *in, u32 length, struct pair *pairs, u32 most) {
  u32 n = 0, start = 0, equals = 0;
  for (u32 i = 0; i < length && n < most; i++) {
    if (in[i] == '=') equals = i;
    if (in[i] != ';') continue;
    pairs[n].key = (struct text){in + start, equals - start};
    pairs[n].value = (struct text){in + equals + 1, i - equals - 1};
    n++;
    start = i + 1;
  }
  return n;
}

static struct text find(const struct pair *pairs, u32 n, const char *key) {
  for (u32 i = 0; i < n; i++)
    if (same(pairs[i].key, key)) return pairs[i].value;
  return (struct text){0, 0};
}

static u8 *append(u8 *to, const u8 *from, u32 length) {
  for (u32 i = 0; i < length; i++) *to++ = from[i];
  return to;
}

EXPORT(holdfast_abi_v1) u32 version(void) { return 0; }
EXPORT(holdfast_alloc) u32 alloc(u32 length) { return (u32)take(length); }

EXPORT(holdfast_decide) u64 decide(const u8 *in, u32 length) {
  struct pair pairs[16];
  u32 n = split(in, length, pairs, 16);
  struct text role = find(pairs, n, "role"), action = find(pairs, n, "action"), resource = find(pairs, n, "resource");
  int allowed = 0;
  for (u32 i = 0; i < sizeof rules / sizeof *rules && !allowed; i++)
    allowed = same(role, rules[i].role) && same(action, rules[i].action) && same(resource, rules[i].resource);
  u8 *out = take(256), *end = out;
  end = append(end, (const u8 *)(allowed ? "allow " : "deny  "), 6);
  end = append(end, role.at, role.length);
  *end++ = ' ';
  end = append(end, action.at, action.length);
  *end++ = ' ';
  end = append(end, resource.at, resource.length);
  return (u64)(u32)out << 32 | (u32)(end - out);
}
