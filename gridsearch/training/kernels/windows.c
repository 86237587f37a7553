/* Each number of the result from a window of the input's numbers, by a table: their weighted sum, or the largest.
 *
 * So maxima and sums over any dimensions, pooling whose windows are of several sizes or leave the map, and maps of another
 * size are one operation.  A value is [blocks][numbers][V].
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.
 */

#include "batch_inner.h"

enum { SUM, FIRST, ALL };

struct run { /* `count` numbers beside each other of the result, whose windows lie beside each other too */
  int32_t to, count, begin, end;
};

struct tap {
  int64_t from; /* for the run's first number */
  double weight;
};

struct windows {
  int64_t pick, numbers, size; /* numbers of the result, and of the input */
  int64_t run_count;
  const struct run *runs;
  const struct tap *taps;
};

INLINE mask as_large(vec x, vec most) { return (mask)(x == most) | ((mask)(x != x) & (mask)(most != most)); }

void windows_forward(const struct op_args *a) {
  const struct windows *s = a->constants;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    const vec *x = (const vec *)a->x[0] + b * s->size;
    for (const struct run *r = s->runs; r < s->runs + s->run_count; r++) {
      vec *restrict y = (vec *)a->y + b * s->numbers + r->to;
      const struct tap *taps = s->taps + r->begin;
      const ptrdiff_t count = r->end - r->begin;
      for (ptrdiff_t i = 0; i < r->count; i++) {
        vec found = s->pick == SUM ? all((REAL)taps[0].weight) * x[taps[0].from + i] : x[taps[0].from + i];
        if (s->pick == SUM)
          for (ptrdiff_t t = 1; t < count; t++) found += all((REAL)taps[t].weight) * x[taps[t].from + i];
        else
          for (ptrdiff_t t = 1; t < count; t++) {
            const vec own = x[taps[t].from + i];
            found = where((mask)(own > found) | (mask)(own != own), own, found);
          }
        y[i] = found;
      }
    }
  }
}

void windows_infer(const struct op_args *a) { windows_forward(a); }

static void spread(const struct windows *s, const struct tap *taps, ptrdiff_t count, const vec *x, vec *gx, vec most,
                   vec gy) {
  if (s->pick == SUM) {
    for (ptrdiff_t t = 0; t < count; t++) gx[taps[t].from] += all((REAL)taps[t].weight) * gy;
  } else if (s->pick == FIRST) {
    mask left = ~(mask){0};
    for (ptrdiff_t t = 0; t < count; t++) {
      const mask own = as_large(x[taps[t].from], most) & left;
      gx[taps[t].from] += (vec)((mask)gy & own);
      left &= ~own;
    }
  } else { /* torch's amax, whose gradient is none where the maximum is */
    vec equal = {0};
    for (ptrdiff_t t = 0; t < count; t++) equal += where((mask)(x[taps[t].from] == most), all(1), all(0));
    for (ptrdiff_t t = 0; t < count; t++)
      gx[taps[t].from] += where((mask)(x[taps[t].from] == most), gy, all(0)) / equal;
  }
}

void windows_backward(const struct op_args *a) {
  const struct windows *s = a->constants;
  if (!a->gx[0]) return;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    const vec *x = (const vec *)a->x[0] + b * s->size;
    vec *gx = (vec *)a->gx[0] + b * s->size;
    if (!a->adds[0]) memset(gx, 0, sizeof(vec) * s->size);
    for (const struct run *r = s->runs; r < s->runs + s->run_count; r++) {
      const ptrdiff_t at = b * s->numbers + r->to;
      for (ptrdiff_t i = 0; i < r->count; i++)
        spread(s, s->taps + r->begin, r->end - r->begin, x + i, gx + i, ((const vec *)a->y)[at + i],
               ((const vec *)a->gy)[at + i]);
    }
  }
}
