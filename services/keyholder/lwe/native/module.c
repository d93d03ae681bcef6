/* cloister_lwe._lwe: the core as a Python module.
 *
 * Everything that comes from Python is measured here before a pointer into it is formed, and
 * parameters are held to the security curve before anything is encrypted. Randomness is drawn here,
 * from the operating system, and none can be passed in.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lwe.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BYTES sizeof(uint64_t)

typedef struct {
    PyObject *key_type;
} module_state;

typedef struct {
    PyObject_HEAD
    /* Null once it is wiped. */
    lwe_key_word *words;
    size_t dimension;
    /* Calls that use the words with the interpreter's lock released. */
    Py_ssize_t users;
    int retired;
} key_object;

/* What all encryptions have in common. */
typedef struct {
    const lwe_kernel *kernel;
    key_object *key;
    unsigned width;
    double std;
    Py_buffer messages;
    size_t count;
} query;

static int fail(const char *message)
{
    PyErr_SetString(PyExc_ValueError, message);
    return -1;
}

static int check_dimension(Py_ssize_t dimension)
{
    if (dimension < LWE_SMALLEST_DIMENSION || dimension > (Py_ssize_t)LWE_LARGEST_DIMENSION)
        return fail("the dimension is out of range");
    return 0;
}

static int check_width(int width)
{
    if (width < 1 || width > LWE_LARGEST_WIDTH)
        return fail("the width is out of range");
    return 0;
}

static int check_bits(int bits)
{
    if (bits < LWE_SMALLEST_BITS || bits > LWE_LARGEST_BITS)
        return fail("the bits of a word are out of range");
    return 0;
}

static int draw(void *buffer, size_t bytes)
{
    if (random_fill(buffer, bytes) == 0)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Keys */

static key_object *new_key(PyTypeObject *type, size_t dimension)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    key_object *key = (key_object *)alloc(type, 0);
    if (!key)
        return NULL;
    key->words = calloc(dimension, sizeof *key->words);
    key->dimension = dimension;
    if (!key->words) {
        Py_DECREF(key);
        PyErr_NoMemory();
        return NULL;
    }
    return key;
}

static void drop_words(key_object *key)
{
    if (!key->words)
        return;
    lwe_wipe(key->words, key->dimension * sizeof *key->words);
    free(key->words);
    key->words = NULL;
}

static lwe_key_word *use(key_object *key)
{
    if (!key->words || key->retired) {
        fail("the key is wiped");
        return NULL;
    }
    key->users++;
    return key->words;
}

static void end_use(key_object *key)
{
    if (--key->users == 0 && key->retired)
        drop_words(key);
}

static PyObject *key_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"dimension", NULL};
    Py_ssize_t dimension;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "n:Key", names, &dimension) ||
        check_dimension(dimension) < 0)
        return NULL;
    uint8_t random[LWE_LARGEST_DIMENSION / 8];
    size_t bytes = lwe_key_random_bytes((size_t)dimension);
    if (draw(random, bytes) < 0)
        return NULL;
    key_object *key = new_key(type, (size_t)dimension);
    if (key)
        lwe_key_from_random(random, (size_t)dimension, key->words);
    lwe_wipe(random, bytes);
    return (PyObject *)key;
}

static PyObject *key_from_bits(PyObject *type, PyObject *argument)
{
    Py_buffer bits;
    if (PyObject_GetBuffer(argument, &bits, PyBUF_SIMPLE) < 0)
        return NULL;
    key_object *key = NULL;
    uint8_t others = 0;
    for (Py_ssize_t k = 0; k < bits.len; k++)
        others |= (uint8_t)(((const uint8_t *)bits.buf)[k] & 0xfe);
    if (others)
        fail("a key's bits are 0 or 1");
    else if (check_dimension(bits.len) == 0)
        key = new_key((PyTypeObject *)type, (size_t)bits.len);
    if (key)
        for (Py_ssize_t k = 0; k < bits.len; k++)
            key->words[k] = 0 - (lwe_key_word)((const uint8_t *)bits.buf)[k];
    PyBuffer_Release(&bits);
    return (PyObject *)key;
}

static PyObject *key_bits(PyObject *self, PyObject *unused)
{
    (void)unused;
    key_object *key = (key_object *)self;
    const lwe_key_word *words = use(key);
    if (!words)
        return NULL;
    PyObject *bits = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)key->dimension);
    if (bits) {
        char *at = PyBytes_AsString(bits);
        for (size_t k = 0; k < key->dimension; k++)
            at[k] = (char)(words[k] & 1);
    }
    end_use(key);
    return bits;
}

static PyObject *key_wipe(PyObject *self, PyObject *unused)
{
    (void)unused;
    key_object *key = (key_object *)self;
    key->retired = 1;
    if (key->users == 0)
        drop_words(key);
    Py_RETURN_NONE;
}

static void key_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    drop_words((key_object *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *key_dimension(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((key_object *)self)->dimension);
}

static PyMethodDef KEY_METHODS[] = {
    {"from_bits", key_from_bits, METH_O | METH_CLASS,
     "from_bits(bits) -> Key\n\nOf bytes that are each 0 or 1; raises ValueError."},
    {"bits", key_bits, METH_NOARGS, "bits() -> bytes\n\nEach 0 or 1; raises ValueError once wiped."},
    {"wipe", key_wipe, METH_NOARGS,
     "wipe() -> None\n\nOverwrite the key, once no call uses it; it is of no use afterwards."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef KEY_MEMBERS[] = {
    {"dimension", key_dimension, NULL, "Length in bits.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot KEY_SLOTS[] = {
    {Py_tp_doc, "Key(dimension)\n\nA secret key of random bits. It is overwritten when dropped."},
    {Py_tp_new, key_new},
    {Py_tp_dealloc, key_dealloc},
    {Py_tp_methods, KEY_METHODS},
    {Py_tp_getset, KEY_MEMBERS},
    {0, NULL},
};

static PyType_Spec KEY_SPEC = {
    .name = "cloister_lwe._lwe.Key",
    .basicsize = sizeof(key_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = KEY_SLOTS,
};

static key_object *as_key(PyObject *module, PyObject *object)
{
    module_state *state = PyModule_GetState(module);
    if (PyObject_TypeCheck(object, (PyTypeObject *)state->key_type))
        return (key_object *)object;
    PyErr_SetString(PyExc_TypeError, "a Key is expected");
    return NULL;
}

/* Kernels */

static const lwe_kernel *find_kernel(const char *name)
{
    const lwe_kernel *found[LWE_MOST_KERNELS];
    size_t count = lwe_kernels(found);
    for (size_t at = 0; at < count; at++)
        if (strcmp(lwe_kernel_name(found[at]), name) == 0)
            return found[at];
    PyErr_Format(PyExc_ValueError, "this processor has no kernel %s", name);
    return NULL;
}

static PyObject *kernels(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const lwe_kernel *found[LWE_MOST_KERNELS];
    size_t count = lwe_kernels(found);
    PyObject *names = PyTuple_New((Py_ssize_t)count);
    for (size_t at = 0; names && at < count; at++) {
        PyObject *name = PyUnicode_FromString(lwe_kernel_name(found[at]));
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)at, name) < 0) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

static PyObject *is_safe(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_ssize_t dimension;
    double std;
    if (!PyArg_ParseTuple(arguments, "nd:is_safe", &dimension, &std))
        return NULL;
    return PyBool_FromLong(dimension > 0 && lwe_is_safe((size_t)dimension, std));
}

/* Encryption */

/* Check a query's parts; its buffer is held, and its key used, only where this returns 0. */
static int open_query(PyObject *module, const char *kernel, PyObject *key, int width, double std,
                      PyObject *messages, query *opened)
{
    opened->kernel = find_kernel(kernel);
    opened->key = as_key(module, key);
    if (!opened->kernel || !opened->key || check_width(width) < 0)
        return -1;
    if (!lwe_is_safe(opened->key->dimension, std))
        return fail("the noise is below 128 bits of security for the dimension");
    opened->width = (unsigned)width;
    opened->std = std;
    if (PyObject_GetBuffer(messages, &opened->messages, PyBUF_SIMPLE) < 0)
        return -1;
    opened->count = (size_t)opened->messages.len / sizeof(int64_t);
    if (opened->count < 1 || opened->count > LWE_LARGEST_COUNT ||
        (size_t)opened->messages.len != opened->count * sizeof(int64_t) ||
        (uintptr_t)opened->messages.buf % _Alignof(int64_t))
        fail("messages must be aligned 64-bit integers, 1 to 2^20 of them");
    else if (use(opened->key))
        return 0;
    PyBuffer_Release(&opened->messages);
    return -1;
}

static void close_query(query *opened)
{
    end_use(opened->key);
    PyBuffer_Release(&opened->messages);
}

/* Bodies of a query under seeds, with noise that is drawn here. Returns 0, or -1 with an error. */
static int encrypt_bodies(const query *opened, const uint8_t *seeds, uint64_t *bodies)
{
    size_t bytes = lwe_noise_bytes(opened->count);
    uint8_t *noise = malloc(bytes);
    if (!noise) {
        PyErr_NoMemory();
        return -1;
    }
    int failed = draw(noise, bytes);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        lwe_encrypt(opened->kernel, opened->key->words, opened->key->dimension, opened->width,
                    opened->std, opened->messages.buf, opened->count, seeds, noise, bodies);
        Py_END_ALLOW_THREADS
    }
    free(noise);
    return failed;
}

static PyObject *encrypt(PyObject *module, PyObject *arguments)
{
    const char *kernel;
    PyObject *key, *messages, *answer = NULL;
    int width;
    double std;
    query opened;
    if (!PyArg_ParseTuple(arguments, "sOidO:encrypt", &kernel, &key, &width, &std, &messages) ||
        open_query(module, kernel, key, width, std, messages, &opened) < 0)
        return NULL;
    size_t count = opened.count;
    uint8_t *seeds = malloc(count * LWE_SEED_BYTES);
    uint64_t *bodies = malloc(count * sizeof *bodies);
    if (!seeds || !bodies)
        PyErr_NoMemory();
    else if (draw(seeds, count * LWE_SEED_BYTES) == 0 && encrypt_bodies(&opened, seeds, bodies) == 0)
        answer = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * LWE_SEEDED_BYTES));
    if (answer) {
        char *at = PyBytes_AsString(answer);
        for (size_t i = 0; i < count; i++, at += LWE_SEEDED_BYTES) {
            memcpy(at, seeds + i * LWE_SEED_BYTES, LWE_SEED_BYTES);
            memcpy(at + LWE_SEED_BYTES, bodies + i, sizeof *bodies);
        }
    }
    free(seeds);
    free(bodies);
    close_query(&opened);
    return answer;
}

static PyObject *encrypt_compact(PyObject *module, PyObject *arguments)
{
    const char *kernel;
    PyObject *key, *messages, *answer = NULL;
    int width, bits;
    double std;
    query opened;
    if (!PyArg_ParseTuple(arguments, "sOidOi:encrypt_compact", &kernel, &key, &width, &std, &messages,
                          &bits) ||
        check_bits(bits) < 0 || open_query(module, kernel, key, width, std, messages, &opened) < 0)
        return NULL;
    size_t count = opened.count;
    uint8_t master[LWE_SEED_BYTES];
    uint8_t *seeds = malloc(count * LWE_SEED_BYTES);
    uint64_t *bodies = malloc(count * sizeof *bodies);
    if (!seeds || !bodies)
        PyErr_NoMemory();
    else if (draw(master, sizeof master) == 0) {
        lwe_expand_seeds(opened.kernel, master, count, seeds);
        if (encrypt_bodies(&opened, seeds, bodies) == 0)
            answer = PyBytes_FromStringAndSize(
                NULL, (Py_ssize_t)(sizeof master + lwe_packed_bytes(count, (unsigned)bits)));
    }
    if (answer) {
        uint8_t *at = (uint8_t *)PyBytes_AsString(answer);
        memcpy(at, master, sizeof master);
        lwe_pack(bodies, count, (unsigned)bits, at + sizeof master);
    }
    if (bodies)
        lwe_wipe(bodies, count * sizeof *bodies);
    free(seeds);
    free(bodies);
    close_query(&opened);
    return answer;
}

/* Decryption */

/* Hold a result's buffer and use its key; `bits` is 64 for words that are not packed. */
static int open_result(PyObject *module, PyObject *key, int width, PyObject *result, Py_ssize_t count,
                       unsigned bits, key_object **used, Py_buffer *held)
{
    *used = as_key(module, key);
    if (!*used || check_width(width) < 0)
        return -1;
    if (count < 1 || count > (Py_ssize_t)LWE_LARGEST_COUNT)
        return fail("the number of ciphertexts is out of range");
    if (PyObject_GetBuffer(result, held, PyBUF_SIMPLE) < 0)
        return -1;
    size_t words = (size_t)count * ((*used)->dimension + 1);
    if ((size_t)held->len != lwe_packed_bytes(words, bits))
        fail("the result is not of the length of so many ciphertexts");
    else if (use(*used))
        return 0;
    PyBuffer_Release(held);
    return -1;
}

static PyObject *decrypt(PyObject *module, PyObject *arguments)
{
    PyObject *object, *result;
    Py_ssize_t count;
    int width, is_signed;
    key_object *key;
    Py_buffer words;
    if (!PyArg_ParseTuple(arguments, "OipOn:decrypt", &object, &width, &is_signed, &result, &count) ||
        open_result(module, object, width, result, count, 64, &key, &words) < 0)
        return NULL;
    PyObject *scores = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    if (scores)
        lwe_decrypt(key->words, key->dimension, (lwe_encoding){(unsigned)width, is_signed}, words.buf,
                    (size_t)count, (int64_t *)PyBytes_AsString(scores));
    end_use(key);
    PyBuffer_Release(&words);
    return scores;
}

static PyObject *decrypt_compact(PyObject *module, PyObject *arguments)
{
    PyObject *object, *result;
    Py_ssize_t count;
    int width, is_signed, bits;
    key_object *key;
    Py_buffer packed;
    if (!PyArg_ParseTuple(arguments, "OipOni:decrypt_compact", &object, &width, &is_signed, &result,
                          &count, &bits) ||
        check_bits(bits) < 0 ||
        open_result(module, object, width, result, count, (unsigned)bits, &key, &packed) < 0)
        return NULL;
    PyObject *scores = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    if (scores)
        lwe_decrypt_packed(key->words, key->dimension, (lwe_encoding){(unsigned)width, is_signed},
                           packed.buf, (unsigned)bits, (size_t)count,
                           (int64_t *)PyBytes_AsString(scores));
    end_use(key);
    PyBuffer_Release(&packed);
    return scores;
}

/* The module */

static int module_start(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    state->key_type = PyType_FromModuleAndSpec(module, &KEY_SPEC, NULL);
    return state->key_type ? PyModule_AddObjectRef(module, "Key", state->key_type) : -1;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->key_type);
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->key_type);
    return 0;
}

static PyMethodDef METHODS[] = {
    {"kernels", kernels, METH_NOARGS,
     "kernels() -> tuple of str\n\nThose that this processor runs, fastest first."},
    {"is_safe", is_safe, METH_VARARGS,
     "is_safe(dimension, std) -> bool\n\nWhether these parameters give 128 bits of security."},
    {"encrypt", encrypt, METH_VARARGS,
     "encrypt(kernel, key, width, std, messages) -> bytes\n\nSeeded ciphertexts of 24 bytes."},
    {"encrypt_compact", encrypt_compact, METH_VARARGS,
     "encrypt_compact(kernel, key, width, std, messages, bits) -> bytes\n\n"
     "A master seed of 16 bytes, then bodies of so many bits."},
    {"decrypt", decrypt, METH_VARARGS,
     "decrypt(key, width, signed, words, count) -> bytes\n\nIntegers of 64 bits."},
    {"decrypt_compact", decrypt_compact, METH_VARARGS,
     "decrypt_compact(key, width, signed, packed, count, bits) -> bytes\n\nIntegers of 64 bits."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, module_start}, {0, NULL}};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_lwe",
    .m_doc = "Keys, seeded encryption and decryption of binary LWE.",
    .m_size = sizeof(module_state),
    .m_methods = METHODS,
    .m_slots = SLOTS,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__lwe(void)
{
    return PyModuleDef_Init(&MODULE);
}
