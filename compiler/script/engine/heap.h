// Memory for QuickJS: size classes with the freed block last in, first out, so
// that a decision's objects come to lie in the blocks that it has written
// before. Nothing is ever joined, and libc's malloc is not linked.

#define PAGE 65536u
#define HEAP_STEP (4 * PAGE)

extern unsigned char __heap_base;

struct block {
    uint32_t size; // of the payload
    uint32_t class;
};

// Classes are the multiples of 16 up to 512, then four for each power of two.
#define CLASSES 128

static struct {
    uint8_t *next, *end; // of the room that was never given out
    void *freed[CLASSES];
} heap;

// heap_begin gives the heap the room between the data and the end of the memory,
// or the payload, which lies at the end.
static void heap_begin(uintptr_t end) {
    heap.next = (uint8_t *)(((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15);
    heap.end = (uint8_t *)end;
}

static uint32_t class_of(uint32_t size, uint32_t *rounded) {
    if (size <= 512) {
        *rounded = (size + 15) & ~15u;
        return *rounded >> 4;
    }
    uint32_t top = 31 - (uint32_t)__builtin_clz(size - 1); // 2^top < size <= 2^(top+1)
    uint32_t step = 1u << (top - 2);
    *rounded = (size + step - 1) & ~(step - 1);
    return 33 + (top - 9) * 4 + ((*rounded - (1u << top)) >> (top - 2)) - 1;
}

// heap_grow makes room for size bytes behind heap.next, or elsewhere.
static int heap_grow(uint32_t size) {
    uint32_t want = (size + HEAP_STEP - 1) / PAGE;
    size_t before = __builtin_wasm_memory_grow(0, want);
    if (before == (size_t)-1) {
        want = (size + PAGE - 1) / PAGE;
        before = __builtin_wasm_memory_grow(0, want);
    }
    if (before == (size_t)-1)
        return 0;
    uint8_t *start = (uint8_t *)(before * PAGE);
    if (heap.end != start)
        heap.next = start;
    heap.end = start + want * PAGE;
    return 1;
}

// heap_reserve sees to it that so many bytes are there without growing.
static void heap_reserve(uint32_t size) {
    if ((uint32_t)(heap.end - heap.next) < size)
        heap_grow(size);
}

static void *heap_take(size_t size) {
    uint32_t rounded;
    if (size == 0)
        size = 1;
    if (size > 0x40000000)
        return NULL;
    uint32_t class = class_of((uint32_t)size, &rounded);
    void *freed = heap.freed[class];
    if (freed) {
        heap.freed[class] = *(void **)freed;
        return freed;
    }
    uint32_t whole = rounded + sizeof(struct block);
    whole = (whole + 7) & ~7u;
    if ((uint32_t)(heap.end - heap.next) < whole && !heap_grow(whole))
        return NULL;
    struct block *b = (struct block *)heap.next;
    heap.next += whole;
    b->size = rounded;
    b->class = class;
    return b + 1;
}

static void heap_give(void *p) {
    if (!p)
        return;
    struct block *b = (struct block *)p - 1;
    *(void **)p = heap.freed[b->class];
    heap.freed[b->class] = p;
}

static void *heap_resize(void *p, size_t size) {
    if (!p)
        return heap_take(size);
    struct block *b = (struct block *)p - 1;
    if (size == 0) {
        heap_give(p);
        return NULL;
    }
    if (size <= b->size)
        return p;
    void *moved = heap_take(size);
    if (!moved)
        return NULL;
    memcpy(moved, p, b->size);
    heap_give(p);
    return moved;
}

#undef malloc
#undef free
#undef realloc

// What libc and QuickJS call by these names.
void *malloc(size_t size) { return heap_take(size); }
void free(void *p) { heap_give(p); }
void *realloc(void *p, size_t size) { return heap_resize(p, size); }
void *calloc(size_t n, size_t size) {
    if (size && n > 0x40000000 / size)
        return NULL;
    void *p = heap_take(n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

static void *js_take(JSMallocState *s, size_t size) { return heap_take(size); }
static void js_give(JSMallocState *s, void *p) { heap_give(p); }
static void *js_resize(JSMallocState *s, void *p, size_t size) { return heap_resize(p, size); }
static size_t js_size(const void *p) { return p ? ((const struct block *)p - 1)->size : 0; }

static const JSMallocFunctions memory_functions = {js_take, js_give, js_resize, js_size};
