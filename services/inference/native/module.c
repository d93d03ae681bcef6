/* cloister_inference.evaluation._linear: the kernels as a Python module.
 *
 * Everything that comes from Python is measured here before a pointer into it is formed; the
 * kernels rely on it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "compact.h"
#include "linear.h"

#include <string.h>

static const linear_kernel_entry *find_kernel(const char *name)
{
    const linear_kernel_entry *entries;
    size_t count = linear_kernels(&entries);
    for (size_t at = 0; at < count; at++)
        if (strcmp(entries[at].name, name) == 0)
            return entries + at;
    PyErr_Format(PyExc_ValueError, "this processor has no kernel %s", name);
    return NULL;
}

/* Sizes and weights, so that no kernel can overflow or leave its buffers. */
static int check(const Py_buffer *inputs, const Py_buffer *weights, const Py_buffer *bias,
                 Py_ssize_t dimension, linear_circuit *circuit)
{
    size_t n_features = (size_t)inputs->len / SEEDED_LWE_BYTES;
    size_t n_outputs = (size_t)bias->len / sizeof(uint64_t);
    if (n_features < 1 || n_features > MAX_FEATURES || n_outputs < 1 || n_outputs > MAX_OUTPUTS ||
        dimension < 1 || dimension > (Py_ssize_t)MAX_DIMENSION) {
        PyErr_SetString(PyExc_ValueError, "features, outputs or dimension are out of range");
        return -1;
    }
    if ((size_t)inputs->len != n_features * SEEDED_LWE_BYTES ||
        (size_t)bias->len != n_outputs * sizeof(uint64_t) ||
        (uint64_t)weights->len != (uint64_t)n_features * n_outputs * sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "inputs, weights and bias do not fit each other");
        return -1;
    }
    if ((uint64_t)n_outputs * ((uint64_t)dimension + 1) * sizeof(uint64_t) > MAX_RESULT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the result is too large");
        return -1;
    }
    if ((uintptr_t)weights->buf % _Alignof(int64_t) || (uintptr_t)bias->buf % _Alignof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "weights and bias must be aligned");
        return -1;
    }
    const int64_t *values = weights->buf;
    for (size_t at = 0; at < n_features * n_outputs; at++)
        if (values[at] <= -WEIGHT_LIMIT || values[at] >= WEIGHT_LIMIT) {
            PyErr_SetString(PyExc_ValueError, "a weight is out of range");
            return -1;
        }
    *circuit = (linear_circuit){inputs->buf, values,    bias->buf,
                                n_features,  n_outputs, (size_t)dimension};
    return 0;
}

static PyObject *evaluate_checked(const linear_kernel_entry *kernel, const linear_circuit *circuit,
                                  const Py_buffer *head, const Py_buffer *tail)
{
    size_t bytes = circuit->n_outputs * (circuit->dimension + 1) * sizeof(uint64_t);
    if ((size_t)head->len > MAX_RESULT_BYTES || (size_t)tail->len > MAX_RESULT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the envelope is too large");
        return NULL;
    }
    PyObject *answer =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((size_t)head->len + bytes + (size_t)tail->len));
    if (!answer)
        return NULL;
    uint8_t *at = (uint8_t *)PyBytes_AsString(answer);
    memcpy(at, head->buf, (size_t)head->len);
    memcpy(at + head->len + bytes, tail->buf, (size_t)tail->len);
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = kernel->evaluate(circuit, at + head->len);
    Py_END_ALLOW_THREADS
    if (failed) {
        Py_DECREF(answer);
        return PyErr_NoMemory();
    }
    return answer;
}

static PyObject *evaluate(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *name;
    Py_ssize_t dimension;
    Py_buffer inputs, weights, bias, head, tail;
    if (!PyArg_ParseTuple(arguments, "sny*y*y*y*y*:evaluate", &name, &dimension, &inputs, &weights,
                          &bias, &head, &tail))
        return NULL;
    const linear_kernel_entry *kernel = find_kernel(name);
    linear_circuit circuit;
    PyObject *answer = NULL;
    if (kernel && check(&inputs, &weights, &bias, dimension, &circuit) == 0)
        answer = evaluate_checked(kernel, &circuit, &head, &tail);
    PyBuffer_Release(&inputs);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&bias);
    PyBuffer_Release(&head);
    PyBuffer_Release(&tail);
    return answer;
}

static int check_bits(int bits)
{
    if (bits >= COMPACT_SMALLEST_BITS && bits <= COMPACT_LARGEST_BITS)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the bits of a word are out of range");
    return -1;
}

static PyObject *expand(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer compact;
    Py_ssize_t n_features;
    int bits;
    if (!PyArg_ParseTuple(arguments, "y*ni:expand", &compact, &n_features, &bits))
        return NULL;
    PyObject *answer = NULL;
    if (check_bits(bits) < 0)
        ;
    else if (n_features < 1 || n_features > (Py_ssize_t)MAX_FEATURES)
        PyErr_SetString(PyExc_ValueError, "features are out of range");
    else if ((size_t)compact.len !=
             SEED_BYTES + compact_packed_bytes((size_t)n_features, (unsigned)bits))
        PyErr_SetString(PyExc_ValueError, "the input is not of the length of so many features");
    else
        answer = PyBytes_FromStringAndSize(NULL, n_features * SEEDED_LWE_BYTES);
    if (answer)
        compact_expand(compact.buf, (size_t)n_features, (unsigned)bits,
                       (uint8_t *)PyBytes_AsString(answer));
    PyBuffer_Release(&compact);
    return answer;
}

static PyObject *pack(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer result;
    Py_ssize_t n_outputs, dimension;
    int bits;
    if (!PyArg_ParseTuple(arguments, "y*nni:pack", &result, &n_outputs, &dimension, &bits))
        return NULL;
    PyObject *answer = NULL;
    if (check_bits(bits) < 0)
        ;
    else if (n_outputs < 1 || n_outputs > (Py_ssize_t)MAX_OUTPUTS || dimension < 1 ||
             dimension > (Py_ssize_t)MAX_DIMENSION)
        PyErr_SetString(PyExc_ValueError, "outputs or dimension are out of range");
    else if ((uint64_t)result.len !=
             (uint64_t)n_outputs * ((uint64_t)dimension + 1) * sizeof(uint64_t))
        PyErr_SetString(PyExc_ValueError, "the result is not of the length of so many outputs");
    else
        answer = PyBytes_FromStringAndSize(
            NULL, (Py_ssize_t)compact_packed_bytes((size_t)n_outputs * ((size_t)dimension + 1),
                                                   (unsigned)bits));
    if (answer)
        compact_pack(result.buf, (size_t)n_outputs, (size_t)dimension, (unsigned)bits,
                     (uint8_t *)PyBytes_AsString(answer));
    PyBuffer_Release(&result);
    return answer;
}

static PyObject *kernels(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const linear_kernel_entry *entries;
    size_t count = linear_kernels(&entries);
    PyObject *names = PyTuple_New((Py_ssize_t)count);
    for (size_t at = 0; names && at < count; at++) {
        PyObject *name = PyUnicode_FromString(entries[at].name);
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)at, name) < 0) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

static PyMethodDef METHODS[] = {
    {"evaluate", evaluate, METH_VARARGS,
     "evaluate(kernel, dimension, inputs, weights, bias, head, tail) -> bytes\n\n"
     "Head, result and tail. Inputs are seeded ciphertexts of 24 bytes; weights int64, row-major,\n"
     "one row an input; bias uint64, one an output. Raises ValueError where they do not fit."},
    {"expand", expand, METH_VARARGS,
     "expand(compact, n_features, bits) -> bytes\n\n"
     "The seeded ciphertexts of a compact input. Raises ValueError where sizes do not fit."},
    {"pack", pack, METH_VARARGS,
     "pack(result, n_outputs, dimension, bits) -> bytes\n\n"
     "A result's ciphertexts, rounded and packed. Raises ValueError where sizes do not fit."},
    {"kernels", kernels, METH_NOARGS,
     "kernels() -> tuple of str\n\nThose that this processor runs, fastest first."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_linear", "Linear circuits on seeded LWE ciphertexts.", 0, METHODS,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__linear(void)
{
    return PyModuleDef_Init(&MODULE);
}
