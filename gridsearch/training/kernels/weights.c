/* Arithmetic on parameters alone: computes the weights of layers from parameters, and the gradients of these.
 *
 * A program is a list of instructions on arrays of up to SIDES dimensions, each of which lies anywhere in some memory.
 * It runs once for a step, whatever the number of images; see weight_programs.py.
 */

#include <math.h>

#include "op.h"
#include "vectors.h"

#define SIDES 5

/* In the order of `Kind` in weight_programs.py; reductions add to the result, or take the largest, over dimensions in
 * which it does not move.  TAKE and PUT are told by their second operand where in a memory to read or to add. */
#define KINDS(X)                                                                                                     \
  X(COPY) X(ADD) X(SUBTRACT) X(MULTIPLY) X(DIVIDE) X(LARGER) X(SMALLER) X(POWER) X(EQUAL) X(UNEQUAL) X(LESS)         \
  X(LESS_OR_EQUAL) X(CHOOSE) X(ROOT) X(EXPONENTIAL) X(LOGARITHM) X(TANH) X(SIGMOID) X(SIZE) X(SIGN) X(SINE)          \
  X(COSINE) X(ERROR_FUNCTION)
#define NAME(KIND) KIND,
enum { KINDS(NAME) SUM, LARGEST, SMALLEST, PRODUCTS, TAKE, PUT };

struct operand {
  int64_t memory, offset, steps[SIDES];
};

struct instruction {
  int64_t kind, sides[SIDES];
  struct operand to, from[3];
};

struct program {
  int64_t count;
  const struct instruction *instructions;
  REAL *const *memories;
};

#if DOUBLE
#define OF_LIBM(F) F
#else
#define OF_LIBM(F) F##f
#endif

INLINE REAL computed(const int kind, REAL a, REAL b, REAL c) {
  switch (kind) {
  case COPY: return a;
  case ADD: return a + b;
  case SUBTRACT: return a - b;
  case MULTIPLY: return a * b;
  case DIVIDE: return a / b;
  case LARGER: return a != a || a > b ? a : b;
  case SMALLER: return a != a || a < b ? a : b;
  case POWER: return OF_LIBM(pow)(a, b);
  case EQUAL: return a == b;
  case UNEQUAL: return a != b;
  case LESS: return a < b;
  case LESS_OR_EQUAL: return a <= b;
  case CHOOSE: return a != 0 ? b : c;
  case ROOT: return OF_LIBM(sqrt)(a);
  case EXPONENTIAL: return OF_LIBM(exp)(a);
  case LOGARITHM: return OF_LIBM(log)(a);
  case TANH: return OF_LIBM(tanh)(a);
  case SIGMOID: return 1 / (1 + OF_LIBM(exp)(-a));
  case SIZE: return OF_LIBM(fabs)(a);
  case SIGN: return (REAL)((a > 0) - (a < 0));
  case SINE: return OF_LIBM(sin)(a);
  case COSINE: return OF_LIBM(cos)(a);
  default: return OF_LIBM(erf)(a);
  }
}

/* Along one dimension; a result may lie where an operand does. */
INLINE void along(const int kind, ptrdiff_t n, REAL *to, ptrdiff_t step, const REAL *a, ptrdiff_t by_a, const REAL *b,
                  ptrdiff_t by_b, const REAL *c, ptrdiff_t by_c) {
  if (step == 1 && by_a == 1 && by_b == 1 && by_c == 0) {
    const REAL last = *c;
    _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < n; i++) to[i] = computed(kind, a[i], b[i], last);
  } else if (step == 1 && by_a == 1 && by_b == 0 && by_c == 0) {
    const REAL other = *b, last = *c;
    _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < n; i++) to[i] = computed(kind, a[i], other, last);
  } else
    for (ptrdiff_t i = 0; i < n; i++) to[i * step] = computed(kind, a[i * by_a], b[i * by_b], c[i * by_c]);
}

static REAL total(ptrdiff_t n, const REAL *a, ptrdiff_t by_a) {
  REAL sum = 0;
  ptrdiff_t i = 0;
  if (by_a == 1) {
    vec sums[4] = {{0}};
    for (; i + 4 * V <= n; i += 4 * V)
      for (int j = 0; j < 4; j++) sums[j] += *(const unaligned_vec *)(a + i + j * V);
    const vec all_of = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int j = 0; j < V; j++) sum += all_of[j];
  }
  for (; i < n; i++) sum += a[i * by_a];
  return sum;
}

static REAL product(ptrdiff_t n, const REAL *a, ptrdiff_t by_a, const REAL *b, ptrdiff_t by_b) {
  REAL sum = 0;
  ptrdiff_t i = 0;
  if (by_a == 1 && by_b == 1) {
    vec sums[4] = {{0}};
    for (; i + 4 * V <= n; i += 4 * V)
      for (int j = 0; j < 4; j++)
        sums[j] += *(const unaligned_vec *)(a + i + j * V) * *(const unaligned_vec *)(b + i + j * V);
    const vec all_of = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int j = 0; j < V; j++) sum += all_of[j];
  }
  for (; i < n; i++) sum += a[i * by_a] * b[i * by_b];
  return sum;
}

static void add_sums(ptrdiff_t n, REAL *to, ptrdiff_t step, const REAL *a, ptrdiff_t by_a) {
  if (step == 0)
    *to += total(n, a, by_a);
  else if (step == 1 && by_a == 1)
    for (ptrdiff_t i = 0; i < n; i++) to[i] += a[i];
  else
    for (ptrdiff_t i = 0; i < n; i++) to[i * step] += a[i * by_a];
}

static void add_products(ptrdiff_t n, REAL *restrict to, ptrdiff_t step, const REAL *restrict a, ptrdiff_t by_a,
                         const REAL *restrict b, ptrdiff_t by_b) {
  if (step == 0)
    *to += product(n, a, by_a, b, by_b);
  else if (step == 1 && by_a == 0 && by_b == 1) {
    const REAL factor = *a;
    for (ptrdiff_t i = 0; i < n; i++) to[i] += factor * b[i];
  } else if (step == 1 && by_a == 1 && by_b == 0) {
    const REAL factor = *b;
    for (ptrdiff_t i = 0; i < n; i++) to[i] += a[i] * factor;
  } else
    for (ptrdiff_t i = 0; i < n; i++) to[i * step] += a[i * by_a] * b[i * by_b];
}

static void take_extremes(const int kind, ptrdiff_t n, REAL *to, ptrdiff_t step, const REAL *a, ptrdiff_t by_a) {
  for (ptrdiff_t i = 0; i < n; i++) to[i * step] = computed(kind, a[i * by_a], to[i * step], 0);
}

static void take(ptrdiff_t n, REAL *to, ptrdiff_t step, const REAL *memory, const REAL *places, ptrdiff_t by) {
  for (ptrdiff_t i = 0; i < n; i++) to[i * step] = memory[(ptrdiff_t)places[i * by]];
}

static void put(ptrdiff_t n, REAL *memory, const REAL *a, ptrdiff_t by_a, const REAL *places, ptrdiff_t by) {
  for (ptrdiff_t i = 0; i < n; i++) memory[(ptrdiff_t)places[i * by]] += a[i * by_a];
}

#define ALONG(KIND)                                                                                                  \
  case KIND: along(KIND, n, to, t[4], a, p[4], b, q[4], c, r[4]); break;

static void execute(const struct instruction *s, REAL *const *memories) {
  REAL *first = memories[s->to.memory] + s->to.offset;
  const REAL *sources[3];
  for (int i = 0; i < 3; i++) sources[i] = memories[s->from[i].memory] + s->from[i].offset;
  const int64_t *t = s->to.steps, *p = s->from[0].steps, *q = s->from[1].steps, *r = s->from[2].steps;
  const ptrdiff_t n = s->sides[4];
  for (ptrdiff_t i = 0; i < s->sides[0]; i++)
    for (ptrdiff_t j = 0; j < s->sides[1]; j++)
      for (ptrdiff_t k = 0; k < s->sides[2]; k++)
        for (ptrdiff_t l = 0; l < s->sides[3]; l++) {
          REAL *to = first + i * t[0] + j * t[1] + k * t[2] + l * t[3];
          const REAL *a = sources[0] + i * p[0] + j * p[1] + k * p[2] + l * p[3];
          const REAL *b = sources[1] + i * q[0] + j * q[1] + k * q[2] + l * q[3];
          const REAL *c = sources[2] + i * r[0] + j * r[1] + k * r[2] + l * r[3];
          switch (s->kind) {
            KINDS(ALONG)
          case SUM: add_sums(n, to, t[4], a, p[4]); break;
          case LARGEST: take_extremes(LARGER, n, to, t[4], a, p[4]); break;
          case SMALLEST: take_extremes(SMALLER, n, to, t[4], a, p[4]); break;
          case TAKE: take(n, to, t[4], a, b, q[4]); break;
          case PUT: put(n, to, a, p[4], b, q[4]); break;
          default: add_products(n, to, t[4], a, p[4], b, q[4]);
          }
        }
}

void run_program(const struct op_args *a) {
  const struct program *s = a->constants;
  for (ptrdiff_t i = 0; i < s->count; i++) execute(s->instructions + i, s->memories);
}
