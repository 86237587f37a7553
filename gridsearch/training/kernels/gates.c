/* Activations of straight and of parabolic pieces, maps times a number for each channel of an image, and channels of maps
 * side by side.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  Each operation
 * reads its shape from `constants`.
 */

#include "batch_inner.h"

INLINE void put(REAL *to, REAL value, int adds) { *to = adds ? *to + value : value; }

/* --- Activations -------------------------------------------------------------------------------------------------- */

enum { RELU6, HARDSIGMOID, HARDSWISH };

struct activation {
  int64_t kind, numbers; /* of an image */
  int64_t inner;         /* whether a batch is whole blocks of V images */
};

static ptrdiff_t count_of(const struct op_args *a) {
  const struct activation *s = a->constants;
  return (s->inner ? CEIL_DIV(a->images, V) * V : a->images) * s->numbers;
}

/* What is no number stays that. */
INLINE REAL clamped(REAL x) { return x < 0 ? 0 : x > 6 ? 6 : x; }

INLINE REAL activated(int kind, REAL x) {
  if (kind == RELU6) return clamped(x);
  return kind == HARDSIGMOID ? clamped(x + 3) / 6 : x * clamped(x + 3) / 6;
}

INLINE REAL gradient(int kind, REAL x, REAL gy) {
  if (kind == RELU6) return x <= 0 || x >= 6 ? 0 : gy;
  if (kind == HARDSIGMOID) return x > -3 && x < 3 ? gy * (REAL)(1 / 6.0f) : 0; /* torch's sixth is one of floats */
  return x <= -3 ? 0 : x < 3 ? gy * (x / 3 + (REAL)0.5) : gy;
}

#define EACH(KIND)                                                                                                   \
  case KIND:                                                                                                         \
    for (ptrdiff_t i = 0; i < count; i++) y[i] = activated(KIND, x[i]);                                              \
    break;
#define EACH_GRADIENT(KIND)                                                                                          \
  case KIND:                                                                                                         \
    if (adds)                                                                                                        \
      for (ptrdiff_t i = 0; i < count; i++) gx[i] += gradient(KIND, x[i], gy[i]);                                    \
    else                                                                                                             \
      for (ptrdiff_t i = 0; i < count; i++) gx[i] = gradient(KIND, x[i], gy[i]);                                     \
    break;

void activation_forward(const struct op_args *a) {
  const struct activation *s = a->constants;
  const ptrdiff_t count = count_of(a);
  const REAL *restrict x = a->x[0];
  REAL *restrict y = a->y;
  switch (s->kind) { EACH(RELU6) EACH(HARDSIGMOID) EACH(HARDSWISH) }
}

void activation_infer(const struct op_args *a) { activation_forward(a); }

void activation_backward(const struct op_args *a) {
  const struct activation *s = a->constants;
  const ptrdiff_t count = count_of(a);
  const int adds = a->adds[0];
  const REAL *restrict x = a->x[0], *restrict gy = a->gy;
  REAL *restrict gx = a->gx[0];
  if (!gx) return;
  switch (s->kind) { EACH_GRADIENT(RELU6) EACH_GRADIENT(HARDSIGMOID) EACH_GRADIENT(HARDSWISH) }
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

/* --- Maps [blocks][pixels][channels][V] whose channels come side by side --------------------------------------------- */

struct concat {
  int64_t count, pixels, channels[OP_INPUTS];
};

void concat_forward(const struct op_args *a) {
  const struct concat *s = a->constants;
  vec *y = a->y;
  for (ptrdiff_t p = 0; p < CEIL_DIV(a->images, V) * s->pixels; p++)
    for (ptrdiff_t i = 0; i < s->count; y += s->channels[i++])
      memcpy(y, (const vec *)a->x[i] + p * s->channels[i], sizeof(vec) * s->channels[i]);
}

void concat_infer(const struct op_args *a) { concat_forward(a); }

void concat_backward(const struct op_args *a) {
  const struct concat *s = a->constants;
  ptrdiff_t all = 0;
  for (ptrdiff_t i = 0; i < s->count; i++) all += s->channels[i];
  for (ptrdiff_t i = s->count - 1, first = all; i >= 0; i--) {
    first -= s->channels[i];
    const vec *gy = (const vec *)a->gy + first;
    vec *gx = a->gx[i];
    for (ptrdiff_t p = 0; gx && p < CEIL_DIV(a->images, V) * s->pixels; p++, gy += all, gx += s->channels[i])
      for (ptrdiff_t c = 0; c < s->channels[i]; c++) gx[c] = a->adds[i] ? gx[c] + gy[c] : gy[c];
  }
}
