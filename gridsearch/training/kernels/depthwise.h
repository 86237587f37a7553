/* A convolution of each channel alone: products of vectors by vectors, channel beside channel. */

#pragma once

#include "map_shapes.h"

#define BESIDE 4 /* channels at a time: their sums do not wait for each other */

/* Some channels of a pixel: weights [channels][taps]. */
INLINE void depthwise_pixel(const vec *restrict map, const REAL *restrict weights, ptrdiff_t taps,
                            const REAL *restrict bias, vec *restrict to, const struct run *restrict run, ptrdiff_t runs,
                            int adds, const int channels) {
  vec sum[BESIDE];
  UNROLL for (int c = 0; c < channels; c++) sum[c] = all(bias[c]);
  for (ptrdiff_t r = 0; r < runs; r++)
    UNROLL for (int c = 0; c < channels; c++) sum[c] += all(weights[c * taps + run[r].weights]) * map[run[r].map + c];
  UNROLL for (int c = 0; c < channels; c++) to[c] = adds ? to[c] + sum[c] : sum[c];
}

/* `multiply` where each group is one channel in and out. */
static void multiply_depthwise(const struct product *p, const vec *map, const REAL *weights, const REAL *bias, vec *to,
                               ptrdiff_t channels, ptrdiff_t taps, int adds) {
  for (const struct tile *t = p->tiles; t < p->tiles + p->strips[p->strip_count]; t++)
    for (int i = 0; i < MOST_PIXELS && (i == 0 || t->to[i] != t->to[i - 1]); i++) {
      const vec *from = map + t->from[i];
      vec *own = to + t->to[i];
      const struct run *run = p->runs + t->first_run;
      ptrdiff_t c = 0;
      for (; c + BESIDE <= channels; c += BESIDE)
        depthwise_pixel(from + c, weights + c * taps, taps, bias + c, own + c, run, t->runs, adds, BESIDE);
      for (; c < channels; c++)
        depthwise_pixel(from + c, weights + c * taps, taps, bias + c, own + c, run, t->runs, adds, 1);
    }
}

/* Adds a block's share of the gradients of the weights: sums [taps][channels]. */
static void depthwise_gradients(const struct product *p, const vec *x, const vec *gradient, vec *restrict sums,
                                ptrdiff_t channels) {
  for (const struct tile *t = p->tiles; t < p->tiles + p->strips[p->strip_count]; t++)
    for (int i = 0; i < MOST_PIXELS && (i == 0 || t->to[i] != t->to[i - 1]); i++)
      for (int r = 0; r < t->runs; r++) {
        const struct run *run = p->runs + t->first_run + r;
        const vec *from = x + t->from[i] + run->map, *own = gradient + t->to[i];
        vec *restrict to = sums + run->weights * channels;
        for (ptrdiff_t c = 0; c < channels; c++) to[c] += from[c] * own[c];
      }
}
