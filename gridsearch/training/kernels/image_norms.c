/* Norms over numbers of one image: each pixel's channels (layer norm), or groups of channels over all pixels (group norm,
 * instance norm).
 *
 * A value is [blocks][pixels][channels][V]: an image's sums are those of its place in a vector, and no vector is ever
 * added up within, but for the gradients of weights.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.
 */

#include <math.h>

#include "batch_inner.h"

struct norm {
  int64_t channels, pixels, groups; /* groups: of channels; 0 where each pixel is a set of its own */
  int64_t centers;                   /* the mean is subtracted */
  double eps;
};

struct set { /* numbers that are normalized together */
  ptrdiff_t pixel, pixels, channel, channels;
};

static ptrdiff_t sets(const struct norm *s) { return s->groups ? s->groups : s->pixels; }

static struct set set_of(const struct norm *s, ptrdiff_t n) {
  if (!s->groups) return (struct set){n, 1, 0, s->channels};
  const ptrdiff_t each = s->channels / s->groups;
  return (struct set){0, s->pixels, n * each, each};
}

static vec mean_of(const struct norm *s, const struct set *set, const vec *x) {
  vec sum = {0};
  for (ptrdiff_t p = set->pixel; p < set->pixel + set->pixels; p++) {
    const vec *own = x + p * s->channels + set->channel;
    vec part[4] = {{0}, {0}, {0}, {0}};
    ptrdiff_t c = 0;
    for (; c + 4 <= set->channels; c += 4)
      UNROLL for (int i = 0; i < 4; i++) part[i] += own[c + i];
    for (; c < set->channels; c++) part[0] += own[c];
    sum += part[0] + part[1] + (part[2] + part[3]);
  }
  return sum / all((REAL)(set->pixels * set->channels));
}

static vec scale_of(const struct norm *s, const struct set *set, const vec *x, vec mean) {
  vec sum = {0};
  for (ptrdiff_t p = set->pixel; p < set->pixel + set->pixels; p++) {
    const vec *own = x + p * s->channels + set->channel;
    vec part[4] = {{0}, {0}, {0}, {0}};
    ptrdiff_t c = 0;
    for (; c + 4 <= set->channels; c += 4)
      UNROLL for (int i = 0; i < 4; i++) part[i] += (own[c + i] - mean) * (own[c + i] - mean);
    for (; c < set->channels; c++) part[0] += (own[c] - mean) * (own[c] - mean);
    sum += part[0] + part[1] + (part[2] + part[3]);
  }
  sum = sum / all((REAL)(set->pixels * set->channels)) + all((REAL)s->eps);
  vec scale;
  for (int i = 0; i < V; i++) scale[i] = 1 / (REAL)sqrt(sum[i]);
  return scale;
}

/* statistics: [blocks][sets][2], mean and scale; NULL in evaluation. */
static void normalize(const struct op_args *a, vec *statistics) {
  const struct norm *s = a->constants;
  const REAL *weight = a->params[0], *bias = a->params[1];
  const vec *x = a->x[0];
  vec *y = a->y;
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++, x += s->pixels * s->channels, y += s->pixels * s->channels)
    for (ptrdiff_t n = 0; n < sets(s); n++) {
      const struct set set = set_of(s, n);
      const vec mean = s->centers ? mean_of(s, &set, x) : (vec){0}, scale = scale_of(s, &set, x, mean);
      for (ptrdiff_t p = set.pixel; p < set.pixel + set.pixels; p++) {
        const vec *from = x + p * s->channels;
        vec *to = y + p * s->channels;
        for (ptrdiff_t c = set.channel; c < set.channel + set.channels; c++) {
          const vec value = (from[c] - mean) * scale;
          to[c] = weight ? value * all(weight[c]) + (bias ? all(bias[c]) : (vec){0}) : value;
        }
      }
      if (statistics) {
        *statistics++ = mean;
        *statistics++ = scale;
      }
    }
}

void norm_forward(const struct op_args *a) { normalize(a, a->saved); }

void norm_infer(const struct op_args *a) { normalize(a, 0); }

/* workspace: the sums for the gradients of weights and biases, [2][channels] */
void norm_backward(const struct op_args *a) {
  const struct norm *s = a->constants;
  const REAL *weight = a->params[0];
  const vec *x = a->x[0], *gy = a->gy, *statistics = a->saved;
  vec *gx = a->gx[0], *weights = a->workspace, *biases = weights + s->channels;
  memset(weights, 0, sizeof(vec) * 2 * s->channels);
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    for (ptrdiff_t n = 0; n < sets(s); n++, statistics += 2) {
      const struct set set = set_of(s, n);
      const vec mean = statistics[0], scale = statistics[1], count = all((REAL)(set.pixels * set.channels));
      vec level = {0}, share = {0};
      for (ptrdiff_t p = set.pixel; p < set.pixel + set.pixels; p++) {
        const vec *from = x + p * s->channels, *own = gy + p * s->channels;
        vec sum = {0}, product = {0};
        for (ptrdiff_t c = set.channel; c < set.channel + set.channels; c++) {
          const vec value = (from[c] - mean) * scale, gradient = weight ? own[c] * all(weight[c]) : own[c];
          weights[c] += own[c] * value;
          biases[c] += own[c];
          sum += gradient;
          product += gradient * value;
        }
        level += sum;
        share += product;
      }
      level = s->centers ? level / count : (vec){0};
      share /= count;
      for (ptrdiff_t p = set.pixel; gx && p < set.pixel + set.pixels; p++) {
        const vec *from = x + p * s->channels, *own = gy + p * s->channels;
        vec *to = gx + p * s->channels;
        for (ptrdiff_t c = set.channel; c < set.channel + set.channels; c++) {
          const vec value = (from[c] - mean) * scale, gradient = weight ? own[c] * all(weight[c]) : own[c];
          const vec found = (gradient - level - value * share) * scale;
          to[c] = a->adds[0] ? to[c] + found : found;
        }
      }
    }
    x += s->pixels * s->channels, gy += s->pixels * s->channels;
    if (gx) gx += s->pixels * s->channels;
  }
  for (ptrdiff_t c = 0; c < s->channels; c++) {
    if (a->grads[0]) ((REAL *)a->grads[0])[c] = (REAL)sum_of(weights[c]);
    if (a->grads[1]) ((REAL *)a->grads[1])[c] = (REAL)sum_of(biases[c]);
  }
}
