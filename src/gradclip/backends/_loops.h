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

INLINE uint32_t bfloat_bits(float x) { /* rounded to nearest, ties to even, into the upper half; a NaN has no lower bits here */
    return as_bits(x) + 0x7fff + ((as_bits(x) >> 16) & 1);
}

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

/* Processors convert halves eight at a time, fifteen times as fast as the arithmetic above. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define F16C __attribute__((target("avx,f16c")))
F16C static int64_t widen_eights(const uint16_t *half, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(half + i))));
    return i;
}
F16C static int64_t narrow_eights(const float *x, int64_t count, uint16_t *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
    return i;
}
static int64_t widen_some(const uint16_t *half, int64_t count, float *out) {
    return __builtin_cpu_supports("avx2") ? widen_eights(half, count, out) : 0;
}
static int64_t narrow_some(const float *x, int64_t count, uint16_t *out) {
    return __builtin_cpu_supports("avx2") ? narrow_eights(x, count, out) : 0;
}
#else
static int64_t widen_some(const uint16_t *half, int64_t count, float *out) { return 0; }
static int64_t narrow_some(const float *x, int64_t count, uint16_t *out) { return 0; }
#endif

static const float *widen(const uint16_t *half, int64_t count, float *out) {
    for (int64_t i = widen_some(half, count, out); i < count; i++) out[i] = half_to_float(half[i]);
    return out;
}
static void narrow(const float *x, int64_t count, uint16_t *out) {
    for (int64_t i = narrow_some(x, count, out); i < count; i++) out[i] = float_to_half(x[i]);
}

/* One element of float32 or bfloat16. (float16 goes through a buffer, a block at a time.) */
INLINE float get(const void *data, int64_t i, int kind) {
    return kind == F32 ? ((const float *)data)[i] : as_float((uint32_t)((const uint16_t *)data)[i] << 16);
}
INLINE void put(void *data, int64_t i, int kind, float x) {
    if (kind == F32) ((float *)data)[i] = x;
    else ((uint16_t *)data)[i] = (uint16_t)(bfloat_bits(x) >> 16);
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
    for (int64_t i = 0; i < count; i++) {
        int16_t size = x[i] & INT16_MAX;
        top = size > top ? size : top;
    }
    return kind == F16 ? half_to_float((uint32_t)top) : as_float((uint32_t)top << 16);
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
    float buffer[BLOCK];
    if (power == INFINITY) return largest(data, from, count, kind);
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t some = count - i < BLOCK ? count - i : BLOCK;
        if (kind == F64) total += wide_sum(data, from + i, some, kind, power == 2);
        else if (kind == F16) total += block_sum(widen((const uint16_t *)data + from + i, some, buffer), 0, some, F32, power == 2);
        else if (power == 2) total += block_sum(data, from + i, some, kind, 1);
        else total += block_sum(data, from + i, some, kind, 0);
    }
    if (power != 2) return total;
    if (kind == F64 && !(total > 1e-280 && total < INFINITY))
        return scaled_norm((const double *)data + from, count, largest(data, from, count, kind));
    return sqrt(total);
}

/* The norm of the run of one piece that begins at element `i`. */
INLINE double run_norm(const Piece *p, int64_t i, double power) {
    if (p->kind == F32) return norm_of(p->data, i, p->each, F32, power);
    if (p->kind == F64) return norm_of(p->data, i, p->each, F64, power);
    if (p->kind == BF16) return norm_of(p->data, i, p->each, BF16, power);
    return norm_of(p->data, i, p->each, F16, power);
}

CLONES static void measure_pieces(const Piece *first, const Piece *last, double power, double *slots) {
    for (const Piece *p = first; p < last; p++)
        for (int64_t i = 0; i < p->count; i += p->each) slots[p->slot + i / p->each] = run_norm(p, i, power);
}

static double joined(double a, double b, double power) {
    if (a == 0 || b != b) return b;
    if (a != a) return a;
    return power == 2 ? hypot(a, b) : power == 1 ? a + b : a > b ? a : b;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

INLINE void scale_floats(void *data, int64_t from, int64_t count, int kind, double factor) {
    int exact = fabs(factor) >= 1e-37 && fabs(factor) <= 1e37; /* else float32 would round the factor to 0 or Inf */
    if (exact)
        for (int64_t i = from; i < from + count; i++) put(data, i, kind, get(data, i, kind) * (float)factor);
    else
        for (int64_t i = from; i < from + count; i++) put(data, i, kind, (float)(get(data, i, kind) * factor));
}

/* Two to a word, so that nothing has to be widened or packed: the lower is shifted up, the upper already is in place. */
INLINE void scale_bfloats(uint16_t *x, int64_t count, double factor) {
    int64_t i = 0;
    float f = (float)factor;
    for (; fabs(factor) >= 1e-37 && fabs(factor) <= 1e37 && i + 2 <= count; i += 2) {
        uint32_t pair;
        memcpy(&pair, x + i, sizeof pair);
        pair = bfloat_bits(as_float(pair << 16) * f) >> 16 | (bfloat_bits(as_float(pair & 0xffff0000) * f) & 0xffff0000);
        memcpy(x + i, &pair, sizeof pair);
    }
    scale_floats(x, i, count - i, BF16, factor);
}

INLINE void scale_halves(uint16_t *x, int64_t count, double factor) {
    float buffer[BLOCK];
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t some = count - i < BLOCK ? count - i : BLOCK;
        widen(x + i, some, buffer);
        scale_floats(buffer, 0, some, F32, factor);
        narrow(buffer, some, x + i);
    }
}

/* Multiply the run of one piece that begins at element `i`. */
INLINE void scale_run(const Piece *p, int64_t i, double factor) {
    if (factor == 1) return;
    if (factor != factor) factor = NAN; /* no payload, which rounding could carry over */
    if (p->kind == F32) scale_floats(p->data, i, p->each, F32, factor);
    else if (p->kind == F64) for (int64_t j = i; j < i + p->each; j++) ((double *)p->data)[j] *= factor;
    else if (p->kind == BF16) scale_bfloats((uint16_t *)p->data + i, p->each, factor);
    else scale_halves((uint16_t *)p->data + i, p->each, factor);
}

/* Multiply by limit / norm; where a double of full precision cannot hold that, by its fraction and then by powers of two. */
INLINE void shrink_run(const Piece *p, int64_t i, double limit, double norm) {
    int above, below;
    if (!(limit / norm < 0x1p-960 && limit > 0)) {
        scale_run(p, i, limit / norm);
        return;
    }
    scale_run(p, i, frexp(limit, &below) / frexp(norm, &above));
    for (int left = below - above, step; left < 0; left -= step) {
        step = left < -1000 ? -1000 : left;
        scale_run(p, i, ldexp(1, step));
    }
}

/* From the end: what was measured last is still in the cache. */
CLONES static void scale_pieces(const Piece *first, const Piece *last, const double *factors) {
    for (const Piece *p = last - 1; p >= first; p--)
        for (int64_t i = 0; i < p->count; i += p->each) {
            const double factor = factors[p->cell + i / p->each];
            if (factor != 1) scale_run(p, i, factor);
        }
}

/* Bring every cell down to its limit while it is in the cache; write the norms before. Return whether any was above.
 * A cell whose norm is no finite double is left as it is. */
CLONES static int limit_pieces(const Piece *first, const Piece *last, double power, const double *limits, double *cells) {
    int changed = 0;
    for (const Piece *p = first, *next; p < last; p = next) {
        for (next = p + 1; next < last && next->cell == p->cell; next++) {} /* the pieces of one large cell */
        for (int64_t i = 0; i < p->count; i += p->each) {
            const double limit = limits[p->cell + i / p->each];
            double norm = run_norm(p, i, power);
            for (const Piece *q = p + 1; q < next; q++) norm = joined(norm, run_norm(q, 0, power), power);
            cells[p->cell + i / p->each] = norm;
            if (!(norm > limit && norm < INFINITY)) continue;
            changed = 1;
            for (const Piece *q = next - 1; q > p; q--) shrink_run(q, 0, limit, norm);
            shrink_run(p, i, limit, norm);
        }
    }
    return changed;
}

/* Clamp one block that may have elements outside; NaN stays. Returns whether any was. */
#define CLAMP(TYPE, GET, PUT)                                                                                  \
    for (int64_t i = 0; i < count; i++) { TYPE x = GET; outside |= (x < low) | (x > high); }                    \
    for (int64_t i = 0; outside && i < count; i++) { TYPE x = GET; x = x < low ? low : x > high ? high : x; PUT; }

INLINE int clamp_doubles(double *x_, int64_t count, double low, double high) {
    int outside = 0;
    CLAMP(double, x_[i], x_[i] = x)
    return outside;
}
INLINE int clamp_floats(void *data, int64_t count, int kind, float low, float high) {
    int outside = 0;
    CLAMP(float, get(data, i, kind), put(data, i, kind, x))
    return outside;
}
INLINE int clamp_halves(uint16_t *data, int64_t count, float low, float high) {
    float buffer[BLOCK] = {0};
    widen(data, count, buffer);
    int outside = clamp_floats(buffer, count, F32, low, high);
    if (outside) narrow(buffer, count, data);
    return outside;
}

/* A bound as the kind can hold it: what lies beyond its range is the end of its range. */
INLINE float bound_in(double bound, int kind) {
    const double most = kind == F16 ? 65504 : kind == BF16 ? 0x1.fep127 : 0x1.fffffep127;
    const float x = (float)(bound > most && bound < INFINITY ? most : bound < -most && bound > -INFINITY ? -most : bound);
    if (kind == F16) return half_to_float(float_to_half(x));
    return kind == BF16 ? as_float(bfloat_bits(x) & 0xffff0000) : x;
}
INLINE int clamp_block(char *data, int64_t count, int kind, double low, double high) {
    if (kind == F64) return clamp_doubles((double *)data, count, low, high);
    if (kind == F16) return clamp_halves((uint16_t *)data, count, bound_in(low, kind), bound_in(high, kind));
    return clamp_floats(data, count, kind, bound_in(low, kind), bound_in(high, kind));
}

/* Return the largest size before clamping. Only blocks with an element outside are written to. */
INLINE double clamp_run(char *data, int64_t count, int kind, double low, double high, int *changed) {
    const int64_t size = kind == F64 ? 8 : kind == F32 ? 4 : 2;
    const double safe = -low < high ? -low : high;
    double found = 0;
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t some = count - at < BLOCK ? count - at : BLOCK;
        double top = largest(data, at, some, kind);
        found = joined(found, top, INFINITY);
        if (!(top <= safe) && clamp_block(data + at * size, some, kind, low, high)) *changed = 1;
    }
    return found;
}

INLINE double clamp_piece(const Piece *p, int64_t i, double low, double high, int *changed) {
    if (p->kind == F32) return clamp_run(p->data + i * 4, p->each, F32, low, high, changed);
    if (p->kind == F64) return clamp_run(p->data + i * 8, p->each, F64, low, high, changed);
    if (p->kind == BF16) return clamp_run(p->data + i * 2, p->each, BF16, low, high, changed);
    return clamp_run(p->data + i * 2, p->each, F16, low, high, changed);
}

CLONES static int clamp_pieces(const Piece *first, const Piece *last, double low, double high, double *slots) {
    int changed = 0;
    for (const Piece *p = first; p < last; p++)
        for (int64_t i = 0; i < p->count; i += p->each)
            slots[p->slot + i / p->each] = clamp_piece(p, i, low, high, &changed);
    return changed;
}
