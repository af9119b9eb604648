/* The loops of the kernel: what is done to one piece of memory. See _kernel.c for who calls them and how they are shared out.
 *
 * Sums run over blocks in float32 SIMD lanes and are carried in float64; a block whose float32 sum overflowed or vanished is
 * summed again in float64. So every finite float32, float16 and bfloat16 tensor is measured exactly, to about 1e-8.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) /* the loader picks the copy that suits the processor */
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline)) /* so that `kind` is a constant in every loop */
#else
#define INLINE static __forceinline
#endif

enum { F32, F64, BF16, F16 };
enum { LANES = 32, BLOCK = 1024 };

/* `count` elements from `data` on; every `each` of them belong to one cell, from number `cell` on, and `slot` is where the
 * norm of the first of these runs goes. A cell too large for one piece has several, with a slot each. */
typedef struct {
    char *data;
    int64_t count, kind, each, cell, slot;
} Piece;

/* ---- elements ---------------------------------------------------------------------------------------------------- */

INLINE float as_float(uint32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
INLINE uint32_t as_bits(float x) { uint32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }

INLINE float half_to_float(uint32_t half) {
    uint32_t size = half & 0x7fff, sign = (half & 0x8000) << 16;
    uint32_t normal = (size << 13) + (size >= 0x7c00 ? 0x70000000u : 0x38000000u); /* Inf and NaN keep the top exponent */
    float small = (float)(int32_t)size * 0x1p-24f;
    return as_float((size < 0x400 ? as_bits(small) : normal) | sign);
}

INLINE uint16_t float_to_half(float x) { /* to nearest, ties to even */
    uint32_t bits = as_bits(x), size = bits & 0x7fffffff;
    uint32_t normal = (size + 0xfff + ((size >> 13) & 1) - 0x38000000u) >> 13;
    uint32_t small = as_bits(as_float(size) + 0.5f) - 0x3f000000u; /* the sum rounds to multiples of 2^-24 */
    uint32_t half = size < 0x38800000u ? small : size < 0x477ff000u ? normal : size <= 0x7f800000u ? 0x7c00 : 0x7e00;
    return (uint16_t)(half | ((bits >> 16) & 0x8000));
}

INLINE uint16_t float_to_bfloat(float x) { /* to nearest, ties to even */
    uint32_t bits = as_bits(x), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000u ? 0x7fc0 : rounded);
}

INLINE float get(const void *data, int64_t i, int kind) {
    if (kind == F32) return ((const float *)data)[i];
    uint32_t bits = ((const uint16_t *)data)[i];
    return kind == BF16 ? as_float(bits << 16) : half_to_float(bits);
}

INLINE void put(void *data, int64_t i, int kind, float x) {
    if (kind == F32) ((float *)data)[i] = x;
    else ((uint16_t *)data)[i] = kind == BF16 ? float_to_bfloat(x) : float_to_half(x);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* The sum of squares (or of sizes) of a block, in float64; exact, and the slower way. */
INLINE double wide_sum(const void *data, int64_t from, int64_t count, int kind, int squares) {
    double lane[8] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) {
            double x = kind == F64 ? ((const double *)data)[from + i + j] : (double)get(data, from + i + j, kind);
            lane[j] += squares ? x * x : fabs(x);
        }
    for (; i < count; i++) {
        double x = kind == F64 ? ((const double *)data)[from + i] : (double)get(data, from + i, kind);
        total += squares ? x * x : fabs(x);
    }
    return total + ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* The same in float32 SIMD sums of at most BLOCK / LANES elements; in float64 where they overflowed or vanished. */
INLINE double block_sum(const void *data, int64_t from, int64_t count, int kind, int squares) {
    float lane[LANES] = {0};
    double wide[8] = {0}, total;
    int64_t whole = count / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float x = get(data, from + i + j, kind);
            lane[j] += squares ? x * x : fabsf(x);
        }
    for (int i = 0; i < LANES; i += 8)
        for (int j = 0; j < 8; j++) wide[j] += (double)lane[i + j];
    total = ((wide[0] + wide[4]) + (wide[1] + wide[5])) + ((wide[2] + wide[6]) + (wide[3] + wide[7]));
    if (whole && !(total > 1e-26 && total < INFINITY)) return wide_sum(data, from, count, kind, squares);
    return whole == count ? total : total + wide_sum(data, from + whole, count - whole, kind, squares);
}

/* The largest size: without its sign bit an element is ordered like an integer, NaN above Inf. */
INLINE double largest(const void *data, int64_t from, int64_t count, int kind) {
    if (kind == F64) {
        const int64_t *x = (const int64_t *)data + from;
        int64_t top = 0;
        double found;
        for (int64_t i = 0; i < count; i++) top = (x[i] & INT64_MAX) > top ? x[i] & INT64_MAX : top;
        memcpy(&found, &top, sizeof found);
        return found;
    }
    if (kind == F32) {
        const int32_t *x = (const int32_t *)data + from;
        int32_t top = 0;
        for (int64_t i = 0; i < count; i++) top = (x[i] & INT32_MAX) > top ? x[i] & INT32_MAX : top;
        return as_float((uint32_t)top);
    }
    const int16_t *x = (const int16_t *)data + from;
    int16_t top = 0;
    for (int64_t i = 0; i < count; i++) top = (int16_t)(x[i] & INT16_MAX) > top ? (int16_t)(x[i] & INT16_MAX) : top;
    return get(&top, 0, kind);
}

/* The norm of float64 elements whose squares overflowed or vanished: divided by the largest first. */
static double scaled_norm(const double *x, int64_t count, double top) {
    double total = 0;
    if (!(top > 0 && top < INFINITY)) return top;
    for (int64_t i = 0; i < count; i++) total += (x[i] / top) * (x[i] / top);
    return top * sqrt(total);
}

INLINE double norm_of(const void *data, int64_t from, int64_t count, int kind, double power) {
    double total = 0;
    if (power == INFINITY) return largest(data, from, count, kind);
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t some = count - i < BLOCK ? count - i : BLOCK;
        if (kind == F64) total += wide_sum(data, from + i, some, kind, power == 2);
        else if (power == 2) total += block_sum(data, from + i, some, kind, 1);
        else total += block_sum(data, from + i, some, kind, 0);
    }
    if (power != 2) return total;
    if (kind == F64 && !(total > 1e-280 && total < INFINITY))
        return scaled_norm((const double *)data + from, count, largest(data, from, count, kind));
    return sqrt(total);
}

CLONES static void measure_pieces(const Piece *first, const Piece *last, double power, double *slots) {
    for (const Piece *p = first; p < last; p++)
        for (int64_t i = 0; i < p->count; i += p->each) {
            double *slot = slots + p->slot + i / p->each;
            if (p->kind == F32) *slot = norm_of(p->data, i, p->each, F32, power);
            else if (p->kind == F64) *slot = norm_of(p->data, i, p->each, F64, power);
            else if (p->kind == BF16) *slot = norm_of(p->data, i, p->each, BF16, power);
            else *slot = norm_of(p->data, i, p->each, F16, power);
        }
}

static double joined(double a, double b, double power) {
    if (a == 0 || b != b) return b;
    if (a != a) return a;
    return power == 2 ? hypot(a, b) : power == 1 ? a + b : a > b ? a : b;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

INLINE void scale_run(void *data, int64_t from, int64_t count, int kind, double factor) {
    int exact = fabs(factor) >= 1e-37 && fabs(factor) <= 1e37; /* else float32 would round the factor to 0 or Inf */
    if (kind == F64)
        for (int64_t i = from; i < from + count; i++) ((double *)data)[i] *= factor;
    else if (exact)
        for (int64_t i = from; i < from + count; i++) put(data, i, kind, get(data, i, kind) * (float)factor);
    else
        for (int64_t i = from; i < from + count; i++) put(data, i, kind, (float)(get(data, i, kind) * factor));
}

/* From the end: what was measured last is still in the cache. */
CLONES static void scale_pieces(const Piece *first, const Piece *last, const double *factors) {
    for (const Piece *p = last - 1; p >= first; p--)
        for (int64_t i = 0; i < p->count; i += p->each) {
            double factor = factors[p->cell + i / p->each];
            if (factor == 1) continue;
            if (p->kind == F32) scale_run(p->data, i, p->each, F32, factor);
            else if (p->kind == F64) scale_run(p->data, i, p->each, F64, factor);
            else if (p->kind == BF16) scale_run(p->data, i, p->each, BF16, factor);
            else scale_run(p->data, i, p->each, F16, factor);
        }
}

/* Only blocks with an element outside are written to. */
#define CLAMP(TYPE, GET, PUT, LOW, HIGH)                                                                        \
    for (int64_t at = 0; at < count; at += BLOCK) {                                                             \
        int64_t end = count - at < BLOCK ? count : at + BLOCK;                                                  \
        const TYPE low = LOW, high = HIGH;                                                                      \
        int outside = 0;                                                                                        \
        for (int64_t i = at; i < end; i++) { TYPE x = GET; outside |= (x < low) | (x > high); }                 \
        if (!outside) continue;                                                                                 \
        changed = 1;                                                                                            \
        for (int64_t i = at; i < end; i++) { TYPE x = GET; x = x < low ? low : x > high ? high : x; PUT; }      \
    }

INLINE float rounded(float x, int kind) {
    uint16_t kept;
    if (kind == F32) return x;
    put(&kept, 0, kind, x);
    return get(&kept, 0, kind);
}

INLINE int clamp_run(void *data, int64_t count, int kind, double lowest, double highest) {
    int changed = 0;
    double *wide = data;
    if (kind == F64) { CLAMP(double, wide[i], wide[i] = x, lowest, highest) }
    else { CLAMP(float, get(data, i, kind), put(data, i, kind, x), rounded((float)lowest, kind), rounded((float)highest, kind)) }
    return changed;
}

CLONES static int clamp_pieces(const Piece *first, const Piece *last, double low, double high) {
    int changed = 0;
    for (const Piece *p = first; p < last; p++) {
        if (p->kind == F32) changed |= clamp_run(p->data, p->count, F32, low, high);
        else if (p->kind == F64) changed |= clamp_run(p->data, p->count, F64, low, high);
        else if (p->kind == BF16) changed |= clamp_run(p->data, p->count, BF16, low, high);
        else changed |= clamp_run(p->data, p->count, F16, low, high);
    }
    return changed;
}
