/// A policy in D, for which there is no SDK: all that it relies on stands in
/// ../../README.md. An agent may spend up to the limit that the parameters name.
module policy;

@nogc nothrow:

/// A stretch of CBOR of which something is still to be read. An item that is not
/// well formed, or of another kind than asked for, makes it bad, and all that is
/// read from a bad one is empty.
struct Item {
    const(ubyte)[] rest;
    bool bad;

@nogc nothrow:

    /// Reads a head: the kind of the item and the number beside it.
    bool head(ref uint kind, ref ulong number) {
        if (bad || rest.length == 0) return fail();
        const info = rest[0] & 31;
        kind = rest[0] >> 5;
        rest = rest[1 .. $];
        number = info;
        if (info < 24) return true;
        if (info > 27) return fail(); // reserved, or without a length
        const n = 1 << (info - 24);
        if (rest.length < n) return fail();
        number = 0;
        foreach (b; rest[0 .. n]) number = number << 8 | b;
        rest = rest[n .. $];
        return true;
    }

    /// Steps over one item, whatever it holds, and returns its bytes.
    const(ubyte)[] skip() {
        const start = rest;
        uint kind;
        ulong number;
        for (ulong left = 1; left > 0; left--) {
            if (!head(kind, number)) return null;
            if (kind == 6) { fail(); return null; } // requests have no tags
            if (kind < 2 || kind == 7) continue;
            if (number > rest.length) { fail(); return null; }
            if (kind < 4) rest = rest[cast(size_t) number .. $];
            else left += kind == 5 ? 2 * number : number;
        }
        return start[0 .. start.length - rest.length];
    }

    /// The value of a member; a bad item when this is no map or has none.
    Item member(string name) {
        Item at = this;
        uint kind;
        ulong left;
        if (!at.head(kind, left) || kind != 5) return Item(null, true);
        for (; left > 0; left--) {
            const key = Item(at.skip(), at.bad).text();
            Item value = Item(at.skip(), at.bad);
            if (at.bad) break;
            if (same(key, name)) return value;
        }
        return Item(null, true);
    }

    const(ubyte)[] text() const {
        Item at = this;
        uint kind;
        ulong length;
        if (!at.head(kind, length) || kind != 3 || length > at.rest.length) return null;
        return at.rest[0 .. cast(size_t) length];
    }

    /// A whole number from 0 that fits into 63 bits.
    bool whole(ref ulong number) const {
        Item at = this;
        uint kind;
        return at.head(kind, number) && kind == 0 && number <= long.max;
    }

    private bool fail() {
        bad = true;
        rest = null;
        return false;
    }
}

bool same(const(ubyte)[] a, string b) {
    if (a.length != b.length) return false;
    foreach (i, c; a) if (c != b[i]) return false;
    return true;
}

/// An answer in the making. Texts in it are shorter than 256 bytes.
struct Answer {
    ubyte[512] bytes;
    size_t length;

@nogc nothrow:

    void put(ubyte b) { bytes[length++] = b; }

    void text(const(char)[][] parts...) {
        size_t n;
        foreach (p; parts) n += p.length;
        if (n < 24) put(cast(ubyte)(0x60 | n));
        else { put(0x78); put(cast(ubyte) n); }
        foreach (p; parts) foreach (c; p) put(c);
    }

    /// {"reasons": [{"code", "text"}], "verdict"}
    long decide(string verdict, string code, const(char)[][] reason...) {
        length = 0;
        put(0xa2); text("reasons"); put(0x81);
        put(0xa2); text("code"); text(code); text("text"); text(reason);
        text("verdict"); text(verdict);
        return cast(long)(cast(ulong) cast(size_t) bytes.ptr << 32 | length);
    }
}

struct Digits {
    char[20] all;
    size_t from = 20;

@nogc nothrow:

    this(ulong n) {
        do { all[--from] = cast(char)('0' + n % 10); n /= 10; } while (n > 0);
    }

    const(char)[] opCall() const return { return all[from .. $]; }
}

__gshared ubyte[512 * 1024] input; // in memory, not in the module
__gshared Answer answer;
__gshared ulong limit;

extern (C):

int holdfast_abi_v1() { return 0; }

/// One buffer is enough: it is used until decide returns.
ubyte* holdfast_alloc(uint length) { return length <= input.length ? input.ptr : null; }

/// {"params": {...}, "data": ...}, once. Parameters without a limit are refused, so
/// that a release with them never comes into force.
int holdfast_init(const(ubyte)* p, uint length) {
    return Item(p[0 .. length]).member("params").member("limit").whole(limit) ? 0 : 1;
}

long holdfast_decide(const(ubyte)* p, uint length) {
    const request = Item(p[0 .. length]);
    Item all = request;
    all.skip();
    if (all.bad || all.rest.length > 0) return 0; // no request
    Item whole = request;
    ulong amount;
    if (!whole.member("context").member("arguments").member("amount").whole(amount))
        return answer.decide("deny", "amount_invalid", "the amount is not a whole number from 0");
    const spent = Digits(amount), most = Digits(limit);
    if (amount > limit) return answer.decide("deny", "over_limit", spent(), " is more than ", most());
    return answer.decide("allow", "within_limit", spent(), " is within ", most());
}

/// What the compiler calls when an index is out of bounds: it ends the call with a
/// trap, and the decision with the point's fail mode.
void __assert(const(char)*, const(char)*, int) { trap(); }

pragma(LDC_intrinsic, "llvm.trap") void trap();
