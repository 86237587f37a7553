/* Activations of each number, maps times a number for each channel of an image, products of two values, and choices.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  Each operation
 * reads its shape from `constants`.
 */

#include "curves.h"

/* --- Activations -------------------------------------------------------------------------------------------------- */

#define CURVES(X)                                                                                                    \
  X(RELU6) X(HARDSIGMOID) X(HARDSWISH) X(HARDTANH) X(GELU) X(GELU_TANH) X(SILU) X(SIGMOID) X(TANH) X(ELU) X(MISH)     \
  X(AFFINE) X(CELU) X(SOFTPLUS) X(LOG_SIGMOID) X(SOFTSIGN) X(TANHSHRINK) X(HARDSHRINK) X(SOFTSHRINK) X(THRESHOLD)     \
  X(CLAMP) X(ABSOLUTE) X(EXPONENTIAL) X(LOGARITHM) X(SQUARE) X(ROOT) X(RECIPROCAL) X(POWER) X(SINE) X(COSINE)         \
  X(SIGN) X(ROUND) X(FLOOR) X(CEILING) X(GREATER) X(GREATER_EQUAL) X(LESS) X(LESS_EQUAL) X(EQUAL) X(NOT_EQUAL)        \
  X(DETACHED)
#define NAME(KIND) KIND,
enum { CURVES(NAME) };

struct activation {
  int64_t kind, numbers; /* of an image */
  int64_t inner;         /* whether a batch is whole blocks of V images */
  double a, b;           /* as `Activation` in stages.py has them */
};

static ptrdiff_t count_of(const struct op_args *a) {
  const struct activation *s = a->constants;
  return (s->inner ? CEIL_DIV(a->images, V) * V : a->images) * s->numbers;
}

/* What is no number stays that. */
INLINE vec clamped(vec x, vec least, vec most) {
  return where((mask)(x < least), least, where((mask)(x > most), most, x));
}
INLINE vec clamped_6(vec x) { return clamped(x, all(0), all(6)); }

/* Of GELU's approximation by tanh. */
INLINE vec bent(vec x) {
  return hyperbolic_tangent(all((REAL)0.79788456080286536) * (x + all((REAL)0.044715) * x * x * x));
}

INLINE vec size_of(vec x) { return (vec)((mask)x & ~(mask)all((REAL)-0.0)); }

/* (1 + e^x)^2 - 1, which is no longer needed where it would overflow. */
INLINE vec of_mish(vec x) {
  const vec e = exponential(where((mask)(x > all(20)), all(20), x));
  return e * (e + all(2));
}

INLINE vec activated(const int kind, const struct activation *s, vec x) {
  const vec a = all((REAL)s->a), b = all((REAL)s->b);
  switch (kind) {
  case RELU6: return clamped_6(x);
  case HARDSIGMOID: return clamped_6(x + all(3)) / all(6);
  case HARDSWISH: return x * clamped_6(x + all(3)) / all(6);
  case HARDTANH: return clamped(x, a, b);
  case GELU: return x * all((REAL)0.5) * (all(1) + error_function(x * all((REAL)0.70710678118654752)));
  case GELU_TANH: return all((REAL)0.5) * x * (all(1) + bent(x));
  case SILU: return x / (all(1) + exponential(-x));
  case SIGMOID: return sigmoid(x);
  case TANH: return hyperbolic_tangent(x);
  case ELU: return b * where((mask)(x <= 0), a * exponential_less_1(x), x);
  case MISH: {
    const vec w = of_mish(x);
    return where((mask)(x > all(20)), x, x * w / (w + all(2)));
  }
  case AFFINE: return a * x + b;
  case CELU: return where((mask)(x <= 0), a * exponential_less_1(x / a), x);
  case SOFTPLUS: return where((mask)(x * a > b), x, logarithm_of_1_more(exponential(x * a)) / a);
  case LOG_SIGMOID: return where((mask)(x >= 0), all(0), x) - logarithm_of_1_more(exponential(-size_of(x)));
  case SOFTSIGN: return x / (all(1) + size_of(x));
  case TANHSHRINK: return x - hyperbolic_tangent(x);
  case HARDSHRINK: return where((mask)(size_of(x) <= a), all(0), x);
  case SOFTSHRINK: return where((mask)(x > a), x - a, where((mask)(x < -a), x + a, x * all(0)));
  case THRESHOLD: return where((mask)(x <= a), b, x);
  case CLAMP: return clamped(x, a, b);
  case ABSOLUTE: return size_of(x);
  case EXPONENTIAL: return exponential(x);
  case LOGARITHM: return logarithm(x);
  case SQUARE: return x * x;
  case ROOT: return root(x);
  case RECIPROCAL: return all(1) / x;
  case POWER: return power(x, a);
  case SINE: return sine(x);
  case COSINE: return cosine(x);
  case SIGN: return where((mask)(x > 0), all(1), where((mask)(x < 0), all(-1), all(0)));
  case ROUND: return to_whole(x);
  case FLOOR: return below(x);
  case CEILING: return -below(-x);
  case GREATER: return where((mask)(x > a), all(1), all(0));
  case GREATER_EQUAL: return where((mask)(x >= a), all(1), all(0));
  case LESS: return where((mask)(x < a), all(1), all(0));
  case LESS_EQUAL: return where((mask)(x <= a), all(1), all(0));
  case EQUAL: return where((mask)(x == a), all(1), all(0));
  case NOT_EQUAL: return where((mask)(x != a), all(1), all(0));
  default: return x;
  }
}

INLINE vec gradient(const int kind, const struct activation *s, vec x, vec gy) {
  const vec a = all((REAL)s->a), b = all((REAL)s->b), half = all((REAL)0.5), none = all(0);
  switch (kind) {
  case RELU6: return where((mask)(x <= 0) | (mask)(x >= all(6)), none, gy);
  case HARDSIGMOID: /* torch's sixth is one of floats */
    return where((mask)(x > all(-3)) & (mask)(x < all(3)), gy * all((REAL)(1 / 6.0f)), none);
  case HARDSWISH: return where((mask)(x <= all(-3)), none, where((mask)(x < all(3)), gy * (x / all(3) + half), gy));
  case HARDTANH: return where((mask)(x <= a) | (mask)(x >= b), none, gy);
  case GELU: {
    const vec below = half * (all(1) + error_function(x * all((REAL)0.70710678118654752)));
    return gy * (below + x * all((REAL)0.39894228040143268) * exponential(x * x * -half));
  }
  case GELU_TANH: {
    const vec t = bent(x);
    const vec inner = all((REAL)0.79788456080286536) * (all(1) + all((REAL)(3 * 0.044715)) * x * x);
    return gy * (half * (all(1) + t) + half * x * (all(1) - t * t) * inner);
  }
  case SILU: {
    const vec y = sigmoid(x);
    return gy * y * (all(1) + x * (all(1) - y));
  }
  case SIGMOID: {
    const vec y = sigmoid(x);
    return gy * (all(1) - y) * y;
  }
  case TANH: {
    const vec y = hyperbolic_tangent(x);
    return gy * (all(1) - y * y);
  }
  case ELU: return gy * b * where((mask)(x <= 0), a * exponential(x), all(1));
  case MISH: {
    const vec w = of_mish(x), e = exponential(where((mask)(x > all(20)), all(20), x)), all_of = w + all(2);
    const vec derivative = w / all_of + x * all(4) * e * (e + all(1)) / (all_of * all_of);
    return gy * where((mask)(x > all(20)), all(1), derivative);
  }
  case AFFINE: return gy * a;
  case CELU: return gy * where((mask)(x <= 0), exponential(x / a), all(1));
  case SOFTPLUS: return gy * where((mask)(x * a > b), all(1), sigmoid(x * a));
  case LOG_SIGMOID: return gy * sigmoid(-x);
  case SOFTSIGN: {
    const vec below = all(1) + size_of(x);
    return gy / (below * below);
  }
  case TANHSHRINK: {
    const vec y = hyperbolic_tangent(x);
    return gy * (y * y);
  }
  case HARDSHRINK:
  case SOFTSHRINK: return where((mask)(size_of(x) <= a), none, gy);
  case THRESHOLD: return where((mask)(x <= a), none, gy);
  case CLAMP: return where((mask)(x >= a) & (mask)(x <= b), gy, none);
  case ABSOLUTE: return gy * where((mask)(x > 0), all(1), where((mask)(x < 0), all(-1), none));
  case EXPONENTIAL: return gy * exponential(x);
  case LOGARITHM: return gy / x;
  case SQUARE: return gy * (x + x);
  case ROOT: { /* torch's norms have no gradient at zero */
    const vec own = gy * half / root(x);
    return where((mask)(x == 0) & (mask)(a > 0), none, own);
  }
  case RECIPROCAL: return -gy / (x * x);
  case POWER: return gy * a * power(x, a - all(1));
  case SINE: return gy * cosine(x);
  case COSINE: return -gy * sine(x);
  default: return none;
  }
}

#define EACH(KIND)                                                                                                   \
  case KIND:                                                                                                         \
    for (ptrdiff_t i = 0; i < count; i++) y[i] = activated(KIND, s, x[i]);                                           \
    break;
#define EACH_GRADIENT(KIND)                                                                                          \
  case KIND:                                                                                                         \
    for (ptrdiff_t i = 0; i < count; i++) {                                                                          \
      const vec own = gradient(KIND, s, x[i], gy[i]);                                                                \
      gx[i] = adds ? gx[i] + own : own;                                                                              \
    }                                                                                                                \
    break;

/* The places of no image stay finite, and their gradients 0, whatever a curve makes of 0. */
static void clear_padding(const struct op_args *a, vec *of) {
  const struct activation *s = a->constants;
  if (!s->inner || a->images % V == 0) return;
  const ptrdiff_t block = a->images / V;
  const mask there = present(a->images, block);
  for (vec *i = of + block * s->numbers; i < of + (block + 1) * s->numbers; i++) *i = where(there, *i, all(0));
}

void activation_forward(const struct op_args *a) {
  const struct activation *s = a->constants;
  const ptrdiff_t count = CEIL_DIV(count_of(a), V); /* what lies behind the last number is nobody's */
  const vec *restrict x = a->x[0];
  vec *restrict y = a->y;
  switch (s->kind) { CURVES(EACH) }
  if (s->kind >= EXPONENTIAL) clear_padding(a, y);
}

void activation_infer(const struct op_args *a) { activation_forward(a); }

void activation_backward(const struct op_args *a) {
  const struct activation *s = a->constants;
  const ptrdiff_t count = CEIL_DIV(count_of(a), V);
  const int adds = a->adds[0];
  const vec *restrict x = a->x[0], *restrict gy = a->gy;
  vec *restrict gx = a->gx[0];
  if (!gx) return;
  switch (s->kind) { CURVES(EACH_GRADIENT) }
  if (s->kind >= EXPONENTIAL) clear_padding(a, gx);
}

/* --- Maps [blocks][pixels][channels][V] times gates [blocks][channels][V] ------------------------------------------- */

struct gated {
  int64_t channels, pixels;
};

void gate_forward(const struct op_args *a) {
  const struct gated *s = a->constants;
  const vec *restrict x = a->x[0], *restrict gate = a->x[1];
  vec *restrict y = a->y;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++, gate += s->channels)
    for (ptrdiff_t p = 0; p < s->pixels; p++, x += s->channels, y += s->channels)
      for (ptrdiff_t c = 0; c < s->channels; c++) y[c] = x[c] * gate[c];
}

void gate_infer(const struct op_args *a) { gate_forward(a); }

void gate_backward(const struct op_args *a) {
  const struct gated *s = a->constants;
  const vec *restrict x = a->x[0], *restrict gate = a->x[1], *restrict gy = a->gy;
  vec *restrict gx = a->gx[0], *restrict gg = a->gx[1];
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++, gate += s->channels) {
    if (gg && !a->adds[1]) memset(gg, 0, sizeof(vec) * s->channels);
    for (ptrdiff_t p = 0; p < s->pixels; p++, x += s->channels, gy += s->channels) {
      for (ptrdiff_t c = 0; gg && c < s->channels; c++) gg[c] += gy[c] * x[c];
      if (!gx) continue;
      for (ptrdiff_t c = 0; c < s->channels; c++) gx[c] = a->adds[0] ? gx[c] + gy[c] * gate[c] : gy[c] * gate[c];
      gx += s->channels;
    }
    if (gg) gg += s->channels;
  }
}

/* --- The product of two values, number by number -------------------------------------------------------------------- */

struct multiplied {
  int64_t numbers; /* of an image */
};

void multiply_forward(const struct op_args *a) {
  const struct multiplied *s = a->constants;
  const vec *x = a->x[0], *other = a->x[1];
  vec *restrict y = a->y;
  for (ptrdiff_t i = 0; i < CEIL_DIV(a->images, V) * s->numbers; i++) y[i] = x[i] * other[i];
}

void multiply_infer(const struct op_args *a) { multiply_forward(a); }

void multiply_backward(const struct op_args *a) {
  const struct multiplied *s = a->constants;
  const vec *gy = a->gy;
  for (int i = 1; i >= 0; i--) {
    const vec *other = a->x[1 - i];
    vec *gx = a->gx[i];
    for (ptrdiff_t n = 0; gx && n < CEIL_DIV(a->images, V) * s->numbers; n++)
      gx[n] = a->adds[i] ? gx[n] + gy[n] * other[n] : gy[n] * other[n];
  }
}

/* --- One of two values, number by number: the first where a third, which comes before them, is not zero ------------- */

void where_forward(const struct op_args *a) {
  const struct multiplied *s = a->constants;
  const vec *condition = a->x[0], *first = a->x[1], *second = a->x[2];
  vec *restrict y = a->y;
  for (ptrdiff_t i = 0; i < CEIL_DIV(a->images, V) * s->numbers; i++)
    y[i] = where((mask)(condition[i] != all(0)), first[i], second[i]);
}

void where_infer(const struct op_args *a) { where_forward(a); }

void where_backward(const struct op_args *a) {
  const struct multiplied *s = a->constants;
  const vec *condition = a->x[0], *gy = a->gy;
  const ptrdiff_t count = CEIL_DIV(a->images, V) * s->numbers;
  for (int i = 2; i >= 1; i--) {
    vec *gx = a->gx[i];
    for (ptrdiff_t n = 0; gx && n < count; n++) {
      const mask first = (mask)(condition[n] != all(0));
      const vec own = i == 1 ? where(first, gy[n], all(0)) : where(first, all(0), gy[n]);
      gx[n] = a->adds[i] ? gx[n] + own : own;
    }
  }
  if (a->gx[0] && !a->adds[0]) memset(a->gx[0], 0, sizeof(vec) * count);
}

/* --- A gradient added to another, of a parameter that two operations have --------------------------------------------- */

/* params[0]: what is added to grads[0]; rows of numbers that begin anywhere. */
void gradient_sum(const struct op_args *a) {
  const struct multiplied *s = a->constants;
  const REAL *restrict more = a->params[0];
  REAL *restrict sum = a->grads[0];
  for (ptrdiff_t i = 0; i < s->numbers; i++) sum[i] += more[i];
}
