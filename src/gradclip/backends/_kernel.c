/* Norms, scaled copies and clamping for lists of plain CPU tensors; kernel.py is the only caller.
 *
 * It knows no method and no policy: `describe` cuts tensors into pieces, and the other functions work on one part of the
 * pieces with the GIL released, shared by threads of PyTorch's own OpenMP runtime where there is one, else by Python threads
 * that call them with a part each. What a piece yields does not depend on how the pieces are shared out, so neither do the results. Nothing is done for each tensor but reading where it lies.
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

/* The elements fill one stretch of memory: in any order of the axes, or (`ordered`) in the usual one. */
static int is_dense(const Tensor *t, int64_t count, int ordered) {
    int64_t filled = 1;
    for (int again = ordered ? 1 : t->ndim; again > 0 && filled < count; again--)
        for (int d = t->ndim - 1; d >= 0; d--)
            if (t->shape[d] > 1 && t->strides[d] == filled) filled *= t->shape[d];
    return filled == count;
}

/* What a tensor is made of; 0 where it is not plain. Without the exchange API the item is (address, count, kind). */
static int read_item(PyObject *item, const Exchange *api, PyObject *types, int ordered, Piece *out) {
    Tensor t;
    if (!api) return PyTuple_Check(item) && PyArg_ParseTuple(item, "LLL", &out->data, &out->count, &out->kind);
    if (!PySequence_Contains(types, (PyObject *)Py_TYPE(item))) return 0;
    if (api->from_object(item, &t)) {
        PyErr_Clear();
        return 0;
    }
    out->kind = kind_of(&t);
    out->data = t.data + t.byte_offset;
    out->count = 1;
    for (int d = 0; d < t.ndim; d++) out->count *= t.shape[d];
    if (out->kind < 0) return 0;
    return !out->count || ((uintptr_t)out->data % (t.bits / 8) == 0 && is_dense(&t, out->count, ordered));
}

typedef struct {
    Piece *pieces;
    int64_t count, room, slots, bytes;
} Pieces;

static int push(Pieces *all, Piece piece) {
    if (all->count == all->room) {
        Piece *more = realloc(all->pieces, (size_t)(all->room = 2 * all->room + 64) * sizeof(Piece));
        if (!more) return 0;
        all->pieces = more;
    }
    piece.slot = all->slots;
    all->slots += piece.count / piece.each;
    all->pieces[all->count++] = piece;
    return 1;
}

/* Cut a tensor of `cells` cells into pieces of at most PIECE elements: some cells each, or a part of one cell. */
static int cut(Pieces *all, Piece whole, int64_t cells) {
    const int64_t each = whole.count / cells, size = whole.kind == F64 ? 8 : whole.kind == F32 ? 4 : 2;
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

static PyObject *describe(PyObject *module, PyObject *args) {
    PyObject *items, *cells, *types, *capsule, *left = PyList_New(0), *result = NULL;
    Pieces all = {0};
    Piece whole = {0};
    int64_t kinds = 0;
    if (!left || !PyArg_ParseTuple(args, "O!OO!O", &PyList_Type, &items, &cells, &PyTuple_Type, &types, &capsule)) goto end;
    const Exchange *api = capsule == Py_None ? NULL : PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    if (PyErr_Occurred()) goto end;
    for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
        PyObject *item = PyList_GetItem(items, i);
        int64_t own = cells == Py_None ? 1 : PyLong_AsLongLong(PyTuple_GetItem(cells, i));
        if (PyErr_Occurred()) goto end;
        if (item != Py_None && !read_item(item, api, types, cells != Py_None, &whole)) {
            PyObject *number = PyLong_FromSsize_t(i);
            int failed = !number || PyList_Append(left, number);
            Py_XDECREF(number);
            if (failed) goto end;
        } else if (item != Py_None) {
            kinds |= 1 << whole.kind;
            if (whole.count && !cut(&all, whole, own)) { PyErr_NoMemory(); goto end; }
        }
        whole.cell += own;
    }
    result = Py_BuildValue("y#LLLLO", all.count ? (char *)all.pieces : "", (Py_ssize_t)(all.count * sizeof(Piece)), all.slots,
                           whole.cell, all.bytes, kinds, left);
end:
    free(all.pieces);
    Py_XDECREF(left);
    return result;
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

static void measure_part(Work *w, const Piece *first, const Piece *last) { measure_pieces(first, last, w->power, w->numbers); }
static void scale_part(Work *w, const Piece *first, const Piece *last) { scale_pieces(first, last, w->numbers); }
static void clamp_part(Work *w, const Piece *first, const Piece *last) {
    if (clamp_pieces(first, last, w->low, w->high, w->numbers)) w->changed = 1;
}

static void limit_part(Work *w, const Piece *first, const Piece *last) {
    if (limit_pieces(first, last, w->power, w->limits, w->numbers)) w->changed = 1;
}

/* Cut part number `part` of `parts` equal parts of all elements into `w->parts` parts, at the bounds of pieces. */
static void find_bounds(Work *w, const Py_buffer *view, int part, int parts) {
    const Piece *p = view->buf, *end = p + view->len / sizeof(Piece);
    double total = 0, at = 0, each;
    for (const Piece *q = p; q < end; q++) total += (double)q->count;
    each = total / parts / w->parts;
    for (int i = 0; i <= w->parts; i++) {
        int last = part == parts - 1 && i == w->parts;
        for (; p < end && (last || at < each * (part * w->parts + i)); p++) at += (double)p->count;
        for (; w->whole_cells && p > (const Piece *)view->buf && p < end && p->cell == p[-1].cell; p++) at += (double)p->count;
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

static void run(Work *w, const Py_buffer *pieces, int part, int parts, int threads) {
    Py_BEGIN_ALLOW_THREADS
    w->parts = threads < 2 || !region ? 1 : threads * PARTS_EACH > PARTS ? PARTS : threads * PARTS_EACH;
    find_bounds(w, pieces, part, parts);
    if (w->parts > 1) region(take_parts, w, (unsigned)threads, 0);
    else take_parts(w);
    Py_END_ALLOW_THREADS
}

static PyObject *measure(PyObject *module, PyObject *args) {
    Py_buffer pieces, slots;
    Work work = {measure_part};
    int part, parts, threads;
    if (!PyArg_ParseTuple(args, "y*w*diii", &pieces, &slots, &work.power, &part, &parts, &threads)) return NULL;
    work.numbers = slots.buf;
    run(&work, &pieces, part, parts, threads);
    PyBuffer_Release(&pieces);
    PyBuffer_Release(&slots);
    Py_RETURN_NONE;
}

static PyObject *join(PyObject *module, PyObject *args) {
    Py_buffer pieces, slots, cells;
    double power;
    if (!PyArg_ParseTuple(args, "y*y*w*d", &pieces, &slots, &cells, &power)) return NULL;
    const Piece *p = pieces.buf, *end = p + pieces.len / sizeof(Piece);
    for (; p < end; p++)
        for (int64_t j = 0; j < p->count / p->each; j++) {
            double *cell = (double *)cells.buf + p->cell + j;
            *cell = joined(*cell, ((double *)slots.buf)[p->slot + j], power);
        }
    PyBuffer_Release(&pieces);
    PyBuffer_Release(&slots);
    PyBuffer_Release(&cells);
    Py_RETURN_NONE;
}

/* From the end: what was measured last is still in the cache. */
static PyObject *scale(PyObject *module, PyObject *args) {
    Py_buffer pieces, factors;
    Work work = {scale_part, .backwards = 1};
    int part, parts, threads;
    if (!PyArg_ParseTuple(args, "y*y*iii", &pieces, &factors, &part, &parts, &threads)) return NULL;
    work.numbers = factors.buf;
    run(&work, &pieces, part, parts, threads);
    PyBuffer_Release(&pieces);
    PyBuffer_Release(&factors);
    Py_RETURN_NONE;
}

static PyObject *clamp(PyObject *module, PyObject *args) {
    Py_buffer pieces, slots;
    Work work = {clamp_part};
    int part, parts, threads;
    if (!PyArg_ParseTuple(args, "y*w*ddiii", &pieces, &slots, &work.low, &work.high, &part, &parts, &threads)) return NULL;
    work.numbers = slots.buf;
    run(&work, &pieces, part, parts, threads);
    PyBuffer_Release(&pieces);
    PyBuffer_Release(&slots);
    return PyBool_FromLong(work.changed);
}

static void forget(void) { region = NULL; } /* a forked child has none of those threads, and would wait for them forever */

static PyObject *limit(PyObject *module, PyObject *args) {
    Py_buffer pieces, limits, cells;
    Work work = {limit_part, .whole_cells = 1};
    int part, parts, threads;
    if (!PyArg_ParseTuple(args, "y*y*w*diii", &pieces, &limits, &cells, &work.power, &part, &parts, &threads)) return NULL;
    work.limits = limits.buf;
    work.numbers = cells.buf;
    run(&work, &pieces, part, parts, threads);
    PyBuffer_Release(&pieces);
    PyBuffer_Release(&limits);
    PyBuffer_Release(&cells);
    return PyBool_FromLong(work.changed);
}

static PyObject *borrow(PyObject *module, PyObject *nothing) {
#if defined(__linux__)
    region = (Region)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (region && pthread_atfork(NULL, NULL, forget)) forget();
#endif
    return PyBool_FromLong(region != NULL);
}

static PyMethodDef methods[] = {
    {"describe", describe, METH_VARARGS, "describe(tensors, cells, types, api) -> (pieces, slots, cells, bytes, kinds, left out)"},
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
