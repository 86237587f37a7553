/* A convolution of each channel alone: products of vectors by vectors.
 *
 * A weight is read once for some pixels with the same taps, and a pixel's gradient once for some taps: as many loads as
 * products are the most that a processor does beside them. */

#pragma once

#include "map_shapes.h"

#define TAPS_BESIDE 9 /* whose gradients are summed at a time */
#define MOST_BESIDE 64 /* pixels of such a sum */
#define FEW 4 /* pixels: of fewer a sum is no longer than its way to memory */

/* Pixels at a time; where two vectors share a line of the cache, two channels are taken with half as many. */
#define PIXELS_BESIDE (BYTES > 32 ? 8 : 4)

/* How many different pixels a tile has: behind them the last one is there again. */
INLINE int pixels_of(const struct tile *t) {
  int count = 1;
  while (count < MOST_PIXELS && t->to[count] != t->to[count - 1]) count++;
  return count;
}

/* Some channels of some pixels: weights [channels][taps]. */
INLINE void depthwise_pixels(const vec *restrict map, const REAL *restrict weights, ptrdiff_t taps,
                             const REAL *restrict bias, vec *restrict to, const int32_t *from, const int32_t *into,
                             const struct run *restrict run, ptrdiff_t runs, int adds, const int channels,
                             const int pixels) {
  const vec *pixel[8];
  vec sum[4][8];
  UNROLL for (int p = 0; p < pixels; p++) pixel[p] = map + from[p];
  UNROLL for (int c = 0; c < channels; c++)
    UNROLL for (int p = 0; p < pixels; p++) sum[c][p] = all(bias[c]);
  for (ptrdiff_t r = 0; r < runs; r++)
    UNROLL for (int c = 0; c < channels; c++) {
      vec weight = all(weights[c * taps + run[r].weights]);
      IN_REGISTER(weight);
      UNROLL for (int p = 0; p < pixels; p++) sum[c][p] += weight * pixel[p][run[r].map + c];
    }
  UNROLL for (int p = 0; p < pixels; p++)
    UNROLL for (int c = 0; c < channels; c++) {
      vec *own = to + into[p] + c;
      *own = adds ? *own + sum[c][p] : sum[c][p];
    }
}

/* `multiply` where each group is one channel in and out. */
static void multiply_depthwise(const struct product *p, const vec *map, const REAL *weights, const REAL *bias, vec *to,
                               ptrdiff_t channels, ptrdiff_t taps, int adds) {
  for (const struct tile *t = p->tiles; t < p->tiles + p->strips[p->strip_count]; t++) {
    const struct run *run = p->runs + t->first_run;
    const int count = pixels_of(t);
#define SOME(CHANNELS, PIXELS)                                                                                       \
  for (; c + CHANNELS <= channels; c += CHANNELS)                                                                    \
    depthwise_pixels(map + c, weights + c * taps, taps, bias + c, to + c, t->from + done, t->to + done, run, t->runs, \
                     adds, CHANNELS, PIXELS)
    for (int done = 0, some; done < count; done += some) {
      ptrdiff_t c = 0;
      some = count - done >= PIXELS_BESIDE ? PIXELS_BESIDE : count - done >= 4 ? 4 : count - done >= 2 ? 2 : 1;
      switch (some) {
      case 8: SOME(1, 8); break;
      case 4: SOME(2, 4); SOME(1, 4); break;
      case 2: SOME(4, 2); SOME(1, 2); break;
      default: SOME(4, 1); SOME(1, 1);
      }
    }
#undef SOME
  }
}

struct pixels { /* that have the same taps */
  int count;
  int32_t from[MOST_BESIDE], to[MOST_BESIDE];
};

/* Adds the gradients of some taps, summed over some pixels; sums [taps][channels]. */
INLINE void depthwise_taps(const struct pixels *pixels, const struct run *run, const vec *x, const vec *gradient,
                           vec *restrict sums, ptrdiff_t channels, const int taps) {
  const vec *at[TAPS_BESIDE];
  UNROLL for (int k = 0; k < taps; k++) at[k] = x + run[k].map;
  for (ptrdiff_t c = 0; c < channels; c++) {
    vec sum[TAPS_BESIDE];
    UNROLL for (int k = 0; k < taps; k++) sum[k] = (vec){0};
    for (int i = 0; i < pixels->count; i++) {
      const ptrdiff_t from = pixels->from[i] + c;
      vec own = gradient[pixels->to[i] + c];
      IN_REGISTER(own);
      UNROLL for (int k = 0; k < taps; k++) sum[k] += own * at[k][from];
    }
    UNROLL for (int k = 0; k < taps; k++) sums[run[k].weights * channels + c] += sum[k];
  }
}

/* Adds a block's share of the gradients of the weights: sums [taps][channels]. */
static void depthwise_gradients(const struct product *p, const vec *x, const vec *gradient, vec *restrict sums,
                                ptrdiff_t channels) {
  const struct tile *end = p->tiles + p->strips[p->strip_count];
  for (const struct tile *t = p->tiles; t < end;) {
    const struct run *run = p->runs + t->first_run, *last = run + t->runs;
    struct pixels pixels;
    pixels.count = 0;
    const struct tile *same = t; /* its runs are compared too: of no taps the first is any */
    for (; t < end && t->first_run == same->first_run && t->runs == same->runs; t++) {
      const int here = pixels_of(t);
      if (pixels.count + here > MOST_BESIDE) break;
      for (int i = 0; i < here; i++, pixels.count++) {
        pixels.from[pixels.count] = t->from[i];
        pixels.to[pixels.count] = t->to[i];
      }
    }
    if (pixels.count >= FEW) {
      for (; last - run >= TAPS_BESIDE; run += TAPS_BESIDE)
        depthwise_taps(&pixels, run, x, gradient, sums, channels, TAPS_BESIDE);
      for (; last - run >= 3; run += 3) depthwise_taps(&pixels, run, x, gradient, sums, channels, 3);
    }
    for (; run < last; run++)
      for (int i = 0; i < pixels.count; i++) {
        const vec *from = x + pixels.from[i] + run->map, *own = gradient + pixels.to[i];
        vec *restrict to = sums + run->weights * channels;
        for (ptrdiff_t c = 0; c < channels; c++) to[c] += from[c] * own[c];
      }
  }
}
