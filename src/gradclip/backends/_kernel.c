/* Norms, scaled copies and clamping for lists of plain CPU tensors; kernel.py is the only caller.
 *
 * It knows no method and no policy: `describe` cuts tensors into pieces, and the other functions work on one part of the
 * pieces with the GIL released, shared by threads of PyTorch's own OpenMP runtime where there is one, else by Python threads
 * that call them with a part each. What a piece yields does not depend on how the pieces are shared out, so neither do the results. Nothing is done for each tensor but reading where it lies.
 *
 * Whatever the functions are handed is checked before memory is touched, and raises ValueError or TypeError. The pieces are an
 * opaque capsule, so that nobody but `describe` can say where memory lies, how long it is, or how many cells there are.
 */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000 /* one binary for every Python from 3.11 on */
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

#include "_loops.h"

enum { PIECE = 1 << 17 }; /* elements */

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* DLPack's tensor, and the head of its C exchange API up to the function that fills one in (github.com/dmlc/dlpack). */
typedef struct {
    char *data;
    int32_t device, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Tensor;
typedef struct {
    uint32_t major, minor;
    void *older, *allocate, *managed_from_object, *object_from_managed;
    int (*from_object)(void *object, Tensor *out);
} Exchange;

static int kind_of(const Tensor *t) {
    if (t->device != 1 || t->lanes != 1) return -1; /* 1: the CPU */
    if (t->code == 2) return t->bits == 32 ? F32 : t->bits == 64 ? F64 : t->bits == 16 ? F16 : -1;
    return t->code == 4 && t->bits == 16 ? BF16 : -1;
}

static int64_t size_of(int64_t kind) { return kind == F64 ? 8 : kind == F32 ? 4 : 2; }

/* The number of elements; -1 where it cannot be told in so many bits (an expanded tensor may claim any). */
static int64_t count_of(const Tensor *t) {
    int64_t count = 1;
    if (t->ndim < 0 || (t->ndim && (!t->shape || !t->strides))) return -1;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] <= 0) return t->shape[d] ? -1 : 0;
    for (int d = 0; d < t->ndim; count *= t->shape[d++])
        if (count > INT64_MAX / 8 / t->shape[d]) return -1;
    return count;
}

/* The elements fill one stretch of memory: in any order of the axes, or (`ordered`) in the usual one. */
static int is_dense(const Tensor *t, int64_t count, int ordered) {
    int64_t filled = 1;
    for (int again = ordered ? 1 : t->ndim; again > 0 && filled < count; again--)
        for (int d = t->ndim - 1; d >= 0; d--)
            if (t->shape[d] > 1 && t->strides[d] == filled) filled *= t->shape[d];
    return filled == count;
}

/* The oldest rules that the kernel knows are the first; an API of later ones holds a pointer to those before. */
static const Exchange *readable(PyObject *capsule) {
    const Exchange *api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    while (api && api->major > 1) api = api->older;
    if (!api && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the kernel reads version 1 of DLPack's exchange API, which this is not");
    return api;
}

/* Each type must itself say that it is read with this API: what it is handed is not checked by it. */
static int are_read_with(PyObject *types, PyObject *capsule) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(types); i++) {
        PyObject *own = PyObject_GetAttrString(PyTuple_GetItem(types, i), "__dlpack_c_exchange_api__");
        int same = own == capsule;
        Py_XDECREF(own);
        if (same) continue;
        PyErr_SetString(PyExc_TypeError, "types must be tensor types whose __dlpack_c_exchange_api__ is the API that is passed");
        return 0;
    }
    return 1;
}

/* By identity: comparing types with == would take longer than reading the tensor. */
static int is_one_of(PyObject *types, PyObject *type) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(types); i++)
        if (PyTuple_GetItem(types, i) == type) return 1;
    return 0;
}

/* (address, count, kind), which Python looked up; False for a tensor that is not plain. Returns -1 with an error set. */
static int read_facts(PyObject *item, Piece *out) {
    long long address, count, kind;
    if (item == Py_False) return 0;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "without DLPack's exchange API a tensor is (address, count, kind), or False if it is not plain");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "LLL", &address, &count, &kind)) return -1;
    if (kind < F32 || kind > F16 || count < 0 || count > INT64_MAX / 16 || address < 0 || address % size_of(kind)
        || (count && !address) || count * size_of(kind) > INT64_MAX - address) {
        PyErr_Format(PyExc_ValueError, "(%lld, %lld, %lld) is no (address, count, kind) of an aligned tensor", address, count, kind);
        return -1;
    }
    out->data = (char *)(uintptr_t)address;
    out->count = count;
    out->kind = kind;
    return 1;
}

/* What a tensor is made of; 0 where it is not plain, -1 with an error set. */
static int read_item(PyObject *item, const Exchange *api, PyObject *types, int ordered, Piece *out) {
    Tensor t;
    if (!api) return read_facts(item, out);
    if (!is_one_of(types, (PyObject *)Py_TYPE(item))) return 0;
    if (api->from_object(item, &t)) {
        PyErr_Clear();
        return 0;
    }
    out->kind = kind_of(&t);
    out->count = count_of(&t);
    out->data = t.data;
    if (out->kind < 0 || out->count <= 0) return out->kind >= 0 && !out->count;
    if (!t.data) return 0; /* its memory was given back */
    out->data += t.byte_offset;
    return (uintptr_t)out->data % (t.bits / 8) == 0 && is_dense(&t, out->count, ordered);
}

typedef struct {
    Piece *pieces;
    int64_t count, room, slots, cells, bytes;
} Pieces;

static int push(Pieces *all, Piece piece) {
    if (all->count == all->room) {
        if (all->room > PTRDIFF_MAX / 4 / (int64_t)sizeof(Piece)) return 0;
        Piece *more = realloc(all->pieces, (size_t)(2 * all->room + 64) * sizeof(Piece));
        if (!more) return 0;
        all->pieces = more;
        all->room = 2 * all->room + 64;
    }
    piece.slot = all->slots;
    all->slots += piece.count / piece.each;
    all->pieces[all->count++] = piece;
    return 1;
}

/* Cut a tensor of `cells` cells, which divide its elements, into pieces of at most PIECE elements: some cells each, or a part
 * of one cell. */
static int cut(Pieces *all, Piece whole, int64_t cells) {
    const int64_t each = whole.count / cells, size = size_of(whole.kind);
    const int64_t step = each > PIECE ? PIECE : PIECE / each * each;
    Piece piece = whole;
    all->bytes += whole.count * size;
    for (int64_t from = 0; from < whole.count; from += piece.count) {
        int64_t end = each > PIECE ? (from / each + 1) * each : whole.count;
        piece.data = whole.data + from * size;
        piece.count = end - from < step ? end - from : step;
        piece.each = each > PIECE ? piece.count : each;
        piece.cell = whole.cell + from / each;
        if (!push(all, piece)) return 0;
    }
    return 1;
}

/* Into how many cells item `i` is cut; -1 with an error set. */
static int64_t own_cells(PyObject *cells, Py_ssize_t i, int64_t before) {
    if (cells == Py_None) return 1;
    PyObject *number = PyTuple_GetItem(cells, i);
    if (!number) return -1;
    if (!PyLong_Check(number)) {
        PyErr_Format(PyExc_TypeError, "cells[%zd] must be an int", i);
        return -1;
    }
    int64_t own = PyLong_AsLongLong(number);
    if (PyErr_Occurred()) PyErr_Clear(); /* beyond 64 bits */
    if (own >= 0 && own <= PY_SSIZE_T_MAX / 16 - before) return own;
    PyErr_Format(PyExc_ValueError, "cells[%zd] is negative, or there would be too many cells to count", i);
    return -1;
}

/* Read one tensor and cut it; 0 where it is not plain, -1 with an error set. */
static int take(Pieces *all, PyObject *item, const Exchange *api, PyObject *types, PyObject *cells, Py_ssize_t i, int64_t *kinds) {
    Piece whole = {.cell = all->cells};
    int64_t own = own_cells(cells, i, all->cells);
    if (own < 0) return -1;
    all->cells += own;
    if (item == Py_None) return 1;
    int plain = read_item(item, api, types, cells != Py_None, &whole);
    if (plain < 1) return plain;
    *kinds |= 1 << whole.kind;
    if (!whole.count) return 1;
    if (!own || whole.count % own) {
        PyErr_Format(PyExc_ValueError, "tensor %zd has %lld elements, which cannot be cut into %lld cells of equal length", i,
                     (long long)whole.count, (long long)own);
        return -1;
    }
    if (whole.count > INT64_MAX / 16 - all->bytes || !cut(all, whole, own)) {
        PyErr_NoMemory();
        return -1;
    }
    return 1;
}

static const char PIECES[] = "gradclip.pieces";

static void free_pieces(Pieces *all) {
    if (all) free(all->pieces);
    free(all);
}

static void drop_capsule(PyObject *capsule) { free_pieces(PyCapsule_GetPointer(capsule, PIECES)); }

static int parsed(int done) {
    if (!done && PyErr_ExceptionMatches(PyExc_OverflowError)) PyErr_SetString(PyExc_ValueError, "a number is too large");
    return done;
}

static int append_number(PyObject *list, Py_ssize_t number) {
    PyObject *item = PyLong_FromSsize_t(number);
    int done = item && !PyList_Append(list, item);
    Py_XDECREF(item);
    return done;
}

static PyObject *describe(PyObject *module, PyObject *args) {
    PyObject *items, *cells, *types, *capsule, *left = NULL, *pieces = NULL, *result = NULL;
    const Exchange *api = NULL;
    int64_t kinds = 0;
    if (!PyArg_ParseTuple(args, "O!OO!O:describe", &PyList_Type, &items, &cells, &PyTuple_Type, &types, &capsule)) return NULL;
    if (cells != Py_None && (!PyTuple_Check(cells) || PyTuple_Size(cells) != PyList_Size(items)))
        return PyErr_Format(PyExc_ValueError, "cells must be None, or a tuple with a number for each of the %zd tensors", PyList_Size(items));
    if (capsule != Py_None && (!(api = readable(capsule)) || !are_read_with(types, capsule))) return NULL;
    Pieces *all = calloc(1, sizeof(Pieces));
    if (!all) return PyErr_NoMemory();
    if (!(left = PyList_New(0))) goto end;
    for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
        PyObject *item = PyList_GetItem(items, i);
        Py_INCREF(item); /* looking at it may run Python, which may change the list */
        int taken = take(all, item, api, types, cells, i, &kinds);
        Py_DECREF(item);
        if (!parsed(taken >= 0) || (!taken && !append_number(left, i))) goto end;
    }
    if (!(pieces = PyCapsule_New(all, PIECES, drop_capsule))) goto end;
    result = Py_BuildValue("OLLLLO", pieces, (long long)all->slots, (long long)all->cells, (long long)all->bytes, (long long)kinds, left);
end:
    if (!pieces) free_pieces(all);
    Py_XDECREF(pieces);
    Py_XDECREF(left);
    return result;
}

/* Whether a tensor is known to have this shape, a tuple; -1 with an error set. */
static int has_shape(PyObject *item, PyObject *shape, const Exchange *api, PyObject *types) {
    Tensor t;
    if (!PyTuple_Check(shape)) {
        PyErr_SetString(PyExc_TypeError, "a shape must be a tuple of ints");
        return -1;
    }
    if (!is_one_of(types, (PyObject *)Py_TYPE(item))) return 0;
    if (api->from_object(item, &t)) {
        PyErr_Clear();
        return 0;
    }
    int same = t.ndim == PyTuple_Size(shape);
    for (int d = 0; same && d < t.ndim; d++) same = PyLong_AsLongLong(PyTuple_GetItem(shape, d)) == t.shape[d];
    return PyErr_Occurred() ? -1 : same;
}

static PyObject *reshaped(PyObject *module, PyObject *args) {
    PyObject *items, *shapes, *types, *capsule, *found;
    const Exchange *api;
    if (!PyArg_ParseTuple(args, "O!O!O!O:reshaped", &PyList_Type, &items, &PyTuple_Type, &shapes, &PyTuple_Type, &types, &capsule)) return NULL;
    if (PyList_Size(items) != PyTuple_Size(shapes))
        return PyErr_Format(PyExc_ValueError, "shapes must have one for each of the %zd tensors, not %zd", PyList_Size(items), PyTuple_Size(shapes));
    if (!(api = readable(capsule)) || !are_read_with(types, capsule) || !(found = PyList_New(0))) return NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(items) && i < PyTuple_Size(shapes); i++) {
        PyObject *item = PyList_GetItem(items, i);
        if (item == Py_None) continue;
        Py_INCREF(item);
        int same = has_shape(item, PyTuple_GetItem(shapes, i), api, types);
        Py_DECREF(item);
        if (!parsed(same >= 0) || (!same && !append_number(found, i))) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return found;
}

/* ---- what is handed back ------------------------------------------------------------------------------------------ */

static const Pieces *pieces_of(PyObject *capsule) {
    const Pieces *all = PyCapsule_IsValid(capsule, PIECES) ? PyCapsule_GetPointer(capsule, PIECES) : NULL;
    if (!all) PyErr_SetString(PyExc_TypeError, "pieces must be what describe() returned as its first item");
    return all;
}

static int takes_power(double power) {
    if (power == 1 || power == 2 || power == INFINITY) return 1;
    PyErr_SetString(PyExc_ValueError, "the kernel measures norms with p of 1, 2 and inf only");
    return 0;
}

/* A view of exactly `count` doubles. */
static int get_doubles(PyObject *object, const char *name, int64_t count, int flags, Py_buffer *view) {
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an array of doubles, such as array.array(\"d\", ...)", name);
        return 0;
    }
    if (PyObject_GetBuffer(object, view, flags | PyBUF_ND | PyBUF_FORMAT)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s must be one stretch of memory%s", name, flags & PyBUF_WRITABLE ? " that can be written" : "");
        return 0;
    }
    int fits = view->itemsize == 8 && view->format && !strcmp(view->format, "d") && (!view->len || (uintptr_t)view->buf % sizeof(double) == 0);
    if (fits && view->len / 8 == count) return 1;
    if (fits) PyErr_Format(PyExc_ValueError, "%s must have %lld items, not %lld", name, (long long)count, (long long)(view->len / 8));
    else PyErr_Format(PyExc_ValueError, "%s must be aligned doubles, with the format \"d\"", name);
    PyBuffer_Release(view);
    return 0;
}

/* Two arrays of doubles, the second of which is written. */
static int get_both(PyObject *read, const char *name, int64_t count, Py_buffer *in, PyObject *written, const char *other, int64_t others, Py_buffer *out) {
    if (!get_doubles(read, name, count, PyBUF_SIMPLE, in)) return 0;
    if (get_doubles(written, other, others, PyBUF_WRITABLE, out)) return 1;
    PyBuffer_Release(in);
    return 0;
}

/* ---- work, shared by threads ------------------------------------------------------------------------------------- */

enum { PARTS = 64, PARTS_EACH = 8 }; /* parts for each thread: one that is held up leaves the rest to the others */

/* What is done to the pieces between two bounds, one part after another. */
typedef struct Work {
    void (*part)(struct Work *, const Piece *first, const Piece *last);
    const Piece *bounds[PARTS + 1];
    double *numbers; /* where norms go, or factors come from */
    const double *limits;
    double power, low, high;
    int parts, next, backwards, whole_cells, changed;
} Work;

/* Which part of the work a call does, of how many, with how many threads. */
typedef struct {
    long long part, parts, threads;
} Share;

static int is_share(Share s) {
    if (s.part >= 0 && s.part < s.parts && s.threads >= 1) return 1;
    PyErr_SetString(PyExc_ValueError, "part must be one of 0 to parts - 1, and threads at least 1");
    return 0;
}

static void measure_part(Work *w, const Piece *first, const Piece *last) { measure_pieces(first, last, w->power, w->numbers); }
static void scale_part(Work *w, const Piece *first, const Piece *last) { scale_pieces(first, last, w->numbers); }
static void clamp_part(Work *w, const Piece *first, const Piece *last) {
    if (clamp_pieces(first, last, w->low, w->high, w->numbers)) w->changed = 1;
}

static void limit_part(Work *w, const Piece *first, const Piece *last) {
    if (limit_pieces(first, last, w->power, w->limits, w->numbers)) w->changed = 1;
}

/* Cut part number `part` of `parts` equal parts of all elements into `w->parts` parts, at the bounds of pieces. */
static void find_bounds(Work *w, const Pieces *all, Share share) {
    const Piece *first = all->pieces, *p = first, *end = first + all->count;
    double total = 0, at = 0, each;
    for (const Piece *q = p; q < end; q++) total += (double)q->count;
    each = total / (double)share.parts / w->parts;
    for (int i = 0; i <= w->parts; i++) {
        int last = share.part == share.parts - 1 && i == w->parts;
        for (; p < end && (last || at < each * ((double)share.part * w->parts + i)); p++) at += (double)p->count;
        for (; w->whole_cells && p > first && p < end && p->cell == p[-1].cell; p++) at += (double)p->count;
        w->bounds[i] = p;
    }
}

/* PyTorch's own OpenMP runtime starts the threads (GOMP_parallel is its stable entrance, which LLVM's and Intel's runtimes
 * have too): they are the ones that PyTorch's last operation leaves awake, where new ones would have to compete with them. */
typedef void (*Region)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
static Region region = NULL;

static void take_parts(void *data) {
    Work *w = data;
#if defined(__GNUC__)
    for (int i; (i = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED)) < w->parts;) {
#else
    for (int i; (i = w->next++) < w->parts;) {
#endif
        int at = w->backwards ? w->parts - 1 - i : i;
        w->part(w, w->bounds[at], w->bounds[at + 1]);
    }
}

static void run(Work *w, const Pieces *all, Share share) {
    if (!all->count) return;
    Py_BEGIN_ALLOW_THREADS
    unsigned threads = share.threads > PARTS ? PARTS : (unsigned)share.threads;
    w->parts = threads < 2 || !region ? 1 : threads > PARTS / PARTS_EACH ? PARTS : (int)threads * PARTS_EACH;
    find_bounds(w, all, share);
    if (w->parts > 1) region(take_parts, w, threads, 0);
    else take_parts(w);
    Py_END_ALLOW_THREADS
}

static PyObject *measure(PyObject *module, PyObject *args) {
    PyObject *capsule, *out;
    Py_buffer slots;
    Work work = {measure_part};
    Share share;
    if (!parsed(PyArg_ParseTuple(args, "OOdLLL:measure", &capsule, &out, &work.power, &share.part, &share.parts, &share.threads))) return NULL;
    const Pieces *all = pieces_of(capsule);
    if (!all || !takes_power(work.power) || !is_share(share)) return NULL;
    if (!get_doubles(out, "slots", all->slots, PyBUF_WRITABLE, &slots)) return NULL;
    work.numbers = slots.buf;
    run(&work, all, share);
    PyBuffer_Release(&slots);
    Py_RETURN_NONE;
}

static PyObject *join(PyObject *module, PyObject *args) {
    PyObject *capsule, *in, *out;
    Py_buffer slots, cells;
    double power;
    if (!parsed(PyArg_ParseTuple(args, "OOOd:join", &capsule, &in, &out, &power))) return NULL;
    const Pieces *all = pieces_of(capsule);
    if (!all || !takes_power(power)) return NULL;
    if (!get_both(in, "slots", all->slots, &slots, out, "cells", all->cells, &cells)) return NULL;
    for (int64_t i = 0; i < all->count; i++) {
        const Piece *p = all->pieces + i;
        for (int64_t j = 0; j < p->count / p->each; j++) {
            double *cell = (double *)cells.buf + p->cell + j;
            *cell = joined(*cell, ((double *)slots.buf)[p->slot + j], power);
        }
    }
    PyBuffer_Release(&slots);
    PyBuffer_Release(&cells);
    Py_RETURN_NONE;
}

/* From the end: what was measured last is still in the cache. */
static PyObject *scale(PyObject *module, PyObject *args) {
    PyObject *capsule, *in;
    Py_buffer factors;
    Work work = {scale_part, .backwards = 1};
    Share share;
    if (!parsed(PyArg_ParseTuple(args, "OOLLL:scale", &capsule, &in, &share.part, &share.parts, &share.threads))) return NULL;
    const Pieces *all = pieces_of(capsule);
    if (!all || !is_share(share) || !get_doubles(in, "factors", all->cells, PyBUF_SIMPLE, &factors)) return NULL;
    work.numbers = factors.buf;
    run(&work, all, share);
    PyBuffer_Release(&factors);
    Py_RETURN_NONE;
}

static PyObject *clamp(PyObject *module, PyObject *args) {
    PyObject *capsule, *out;
    Py_buffer slots;
    Work work = {clamp_part};
    Share share;
    if (!parsed(PyArg_ParseTuple(args, "OOddLLL:clamp", &capsule, &out, &work.low, &work.high, &share.part, &share.parts, &share.threads)))
        return NULL;
    const Pieces *all = pieces_of(capsule);
    if (!all || !is_share(share)) return NULL;
    if (!(work.low <= work.high)) {
        PyErr_SetString(PyExc_ValueError, "low must not be above high, and neither may be NaN");
        return NULL;
    }
    if (!get_doubles(out, "slots", all->slots, PyBUF_WRITABLE, &slots)) return NULL;
    work.numbers = slots.buf;
    run(&work, all, share);
    PyBuffer_Release(&slots);
    return PyBool_FromLong(work.changed);
}

static PyObject *limit(PyObject *module, PyObject *args) {
    PyObject *capsule, *in, *out;
    Py_buffer limits, cells;
    Work work = {limit_part, .whole_cells = 1};
    Share share;
    if (!parsed(PyArg_ParseTuple(args, "OOOdLLL:limit", &capsule, &in, &out, &work.power, &share.part, &share.parts, &share.threads)))
        return NULL;
    const Pieces *all = pieces_of(capsule);
    if (!all || !takes_power(work.power) || !is_share(share)) return NULL;
    if (!get_both(in, "limits", all->cells, &limits, out, "cells", all->cells, &cells)) return NULL;
    work.limits = limits.buf;
    work.numbers = cells.buf;
    run(&work, all, share);
    PyBuffer_Release(&limits);
    PyBuffer_Release(&cells);
    return PyBool_FromLong(work.changed);
}

#if defined(__linux__)
static void forget(void) { region = NULL; } /* a forked child has none of those threads, and would wait for them forever */
#endif

static PyObject *borrow(PyObject *module, PyObject *nothing) {
#if defined(__linux__)
    static int watching = 0;
    if (!watching && !pthread_atfork(NULL, NULL, forget)) watching = 1;
    region = watching ? (Region)dlsym(RTLD_DEFAULT, "GOMP_parallel") : NULL;
#endif
    return PyBool_FromLong(region != NULL);
}

static PyMethodDef methods[] = {
    {"describe", describe, METH_VARARGS, "describe(tensors, cells, types, api) -> (pieces, slots, cells, bytes, kinds, left out)"},
    {"reshaped", reshaped, METH_VARARGS, "reshaped(tensors, shapes, types, api) -> those of another shape, or that cannot be read"},
    {"borrow", borrow, METH_NOARGS, "borrow() -> whether PyTorch's OpenMP runtime was found, to share work with its threads"},
    {"measure", measure, METH_VARARGS, "measure(pieces, slots, power, part, parts, threads): the norm of every piece of every cell"},
    {"join", join, METH_VARARGS, "join(pieces, slots, cells, power): the norm of every cell, into zeros"},
    {"scale", scale, METH_VARARGS, "scale(pieces, factors, part, parts, threads): multiply every cell by its factor"},
    {"limit", limit, METH_VARARGS, "limit(pieces, limits, cells, power, part, parts, threads) -> whether any cell was above its limit"},
    {"clamp", clamp, METH_VARARGS, "clamp(pieces, slots, low, high, part, parts, threads) -> whether anything was outside; the largest sizes before"},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef_Slot module_slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};
#define ABOUT "Norms, scaling and clamping of plain CPU tensors: see gradclip.backends.kernel."
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", ABOUT, 0, methods, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
