/* Numbers of values in another order, and parameters as values that all images share.
 *
 * A value is [blocks][numbers][V]; numbers move as whole vectors.  So channels are shuffled, chosen or put side by side,
 * tokens and heads change places, and a token is repeated for each image, all by one table.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.
 */

#include "batch_inner.h"

struct run { /* numbers that stay beside each other; of no input: a constant, `from` says which */
  int32_t input, from, to, count;
};

struct arrangement {
  int64_t count, numbers, sizes[OP_INPUTS]; /* of inputs; numbers of the result, and of each input */
  int64_t whole[OP_INPUTS];                 /* each of its numbers is read once */
  int64_t run_count;
  const struct run *runs;
  const double *constants;
};

void arrange_forward(const struct op_args *a) {
  const struct arrangement *s = a->constants;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    vec *y = (vec *)a->y + b * s->numbers;
    for (const struct run *r = s->runs; r < s->runs + s->run_count; r++) {
      if (r->input < 0) {
        const vec constant = all((REAL)s->constants[r->from]);
        for (ptrdiff_t i = 0; i < r->count; i++) y[r->to + i] = constant;
        continue;
      }
      const vec *x = (const vec *)a->x[r->input] + b * s->sizes[r->input] + r->from;
      for (ptrdiff_t i = 0; i < r->count; i++) y[r->to + i] = x[i];
    }
  }
}

void arrange_infer(const struct op_args *a) { arrange_forward(a); }

void arrange_backward(const struct op_args *a) {
  const struct arrangement *s = a->constants;
  for (ptrdiff_t input = s->count - 1; input >= 0; input--) {
    if (!a->gx[input]) continue;
    const int writes = !a->adds[input] && s->whole[input];
    for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
      const vec *gy = (const vec *)a->gy + b * s->numbers;
      vec *gx = (vec *)a->gx[input] + b * s->sizes[input];
      if (!a->adds[input] && !writes) memset(gx, 0, sizeof(vec) * s->sizes[input]);
      for (const struct run *r = s->runs; r < s->runs + s->run_count; r++) {
        if (r->input != input) continue;
        const vec *from = gy + r->to;
        vec *to = gx + r->from;
        if (writes)
          for (ptrdiff_t i = 0; i < r->count; i++) to[i] = from[i];
        else
          for (ptrdiff_t i = 0; i < r->count; i++) to[i] += from[i];
      }
    }
  }
}

/* --- A parameter as a value ------------------------------------------------------------------------------------------ */

struct learned {
  int64_t numbers;
};

/* It is a parameter, or else a buffer, which has no gradient. */
void learned_forward(const struct op_args *a) {
  const struct learned *s = a->constants;
  const REAL *own = a->params[0] ? a->params[0] : a->buffers[0];
  vec *y = a->y;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++, y += s->numbers)
    for (ptrdiff_t i = 0; i < s->numbers; i++) y[i] = all(own[i]);
}

void learned_infer(const struct op_args *a) { learned_forward(a); }

void learned_backward(const struct op_args *a) {
  const struct learned *s = a->constants;
  const vec *gy = a->gy;
  REAL *gradient = a->grads[0];
  if (!gradient) return;
  for (ptrdiff_t i = 0; i < s->numbers; i++) {
    double sum = 0;
    for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) sum += sum_of(gy[b * s->numbers + i]);
    gradient[i] = (REAL)sum;
  }
}
