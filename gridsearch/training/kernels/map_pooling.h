/* Max pooling of a block, forwards and backwards, and the activation. */

#pragma once

#include "map_shapes.h"

/* The part of a window that lies on the map. */
struct window {
  ptrdiff_t top, left, h0, h1, w0, w1; /* h and w from top and left */
};

static struct window window_of(const struct pool *p, ptrdiff_t r, ptrdiff_t q, ptrdiff_t rows, ptrdiff_t columns) {
  const ptrdiff_t top = r * p->step[0] - p->padding[0], left = q * p->step[1] - p->padding[1];
  return (struct window){top, left, MAX(0, -top), MIN(p->kernel[0], rows - top), MAX(0, -left), MIN(p->kernel[1],
                                                                                                    columns - left)};
}

static int is_square(const struct window *w, int side) { return !w->h0 && !w->w0 && w->h1 == side && w->w1 == side; }

/* The largest of a window of all channels, where the first of equal values counts and NaN is the largest.  Of what is
 * pooled, `scale` times it plus `shift` is taken where there is a scale. */
INLINE void max_of_window(const vec *restrict window, ptrdiff_t columns, ptrdiff_t channels, const ptrdiff_t h0,
                          const ptrdiff_t h1, const ptrdiff_t w0, const ptrdiff_t w1, const ptrdiff_t side,
                          const REAL *restrict scale, const REAL *restrict shift, vec *restrict y,
                          uint8_t *restrict argmax) {
  for (ptrdiff_t c = 0; c < channels; c++) {
    const vec by = scale ? all(scale[c]) : (vec){0}, plus = scale ? all(shift[c]) : (vec){0};
    vec most = window[(h0 * columns + w0) * channels + c];
    if (scale) most = most * by + plus;
    mask index = (mask){0} + (word)(h0 * side + w0);
    for (ptrdiff_t h = h0; h < h1; h++)
      for (ptrdiff_t w = w0; w < w1; w++) {
        vec value = window[(h * columns + w) * channels + c];
        if (scale) value = value * by + plus;
        const mask more = (mask)(value > most) | (mask)(value != value);
        most = where(more, value, most);
        index = (index & ~more) | (((mask){0} + (word)(h * side + w)) & more);
      }
    y[c] = most;
    if (argmax) *(index_vec *)(argmax + c * V) = __builtin_convertvector(index, index_vec);
  }
}

/* Max pooling of a block; scale and shift, and argmax, may be NULL. */
INLINE void max_pool_of(const struct pool *p, const vec *restrict x, const REAL *restrict scale,
                        const REAL *restrict shift, vec *restrict y, uint8_t *restrict argmax, ptrdiff_t rows,
                        ptrdiff_t columns, ptrdiff_t channels) {
  for (ptrdiff_t r = 0; r < p->rows; r++)
    for (ptrdiff_t q = 0; q < p->columns; q++, y += channels, argmax = argmax ? argmax + channels * V : 0) {
      const struct window w = window_of(p, r, q, rows, columns);
      const vec *window = x + (w.top * columns + w.left) * channels;
      if (p->kernel[1] == 2 && is_square(&w, 2)) /* the usual ones with sides that the compiler knows */
        max_of_window(window, columns, channels, 0, 2, 0, 2, 2, scale, shift, y, argmax);
      else if (p->kernel[1] == 3 && is_square(&w, 3))
        max_of_window(window, columns, channels, 0, 3, 0, 3, 3, scale, shift, y, argmax);
      else
        max_of_window(window, columns, channels, w.h0, w.h1, w.w0, w.w1, p->kernel[1], scale, shift, y, argmax);
    }
}

static void max_pool(const struct pool *p, const vec *x, vec *y, uint8_t *argmax, ptrdiff_t rows, ptrdiff_t columns,
                     ptrdiff_t channels) {
  max_pool_of(p, x, 0, 0, y, argmax, rows, columns, channels);
}

static void max_pool_scaled(const struct pool *p, const vec *x, const REAL *scale, const REAL *shift, vec *y,
                            uint8_t *argmax, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t channels) {
  max_pool_of(p, x, scale, shift, y, argmax, rows, columns, channels);
}

INLINE mask index_at(const uint8_t *argmax) {
  return __builtin_convertvector(*(const index_vec *)argmax, mask);
}

/* Whether windows neither overlap nor leave anything out. */
static int partitions(const struct pool *p, ptrdiff_t rows, ptrdiff_t columns) {
  return p->kernel[0] == p->step[0] && p->kernel[1] == p->step[1] && !p->padding[0] && !p->padding[1] &&
         p->rows * p->step[0] == rows && p->columns * p->step[1] == columns;
}

/* The numbers, and where `low` times the slope: without one zeros, also of what is no finite number. */
INLINE vec sloped(mask low, vec numbers, REAL slope) {
  return slope == 0 ? (vec)((mask)numbers & ~low) : where(low, all(slope) * numbers, numbers);
}

/* The activation: ReLU, leaky or not, or one that does not exceed a number. */
INLINE vec activated(const struct shapes *s, vec x) {
  const vec y = sloped((mask)(x <= 0), x, (REAL)s->slope);
  return s->most > 0 ? where((mask)(y > all((REAL)s->most)), all((REAL)s->most), y) : y;
}

/* The gradient of the maps, given that of the pooled maps; y gates it where an activation follows, else NULL. */
INLINE vec gated(const struct shapes *s, vec gradient, const vec *y) {
  if (!y) return gradient;
  const vec own = sloped((mask)(*y <= 0), gradient, (REAL)s->slope);
  return s->most > 0 ? (vec)((mask)own & ~(mask)(*y >= all((REAL)s->most))) : own;
}

/* Batch norm of a block, for its gradient. */
struct norm {
  const vec *before;                         /* the maps that come in */
  const REAL *mean, *level, *share, *scale; /* of each channel */
  mask places;                               /* of images */
};

/* The gradient before batch norm: (gradient - its mean - deviation * its share) * scale, and zeros where no image is. */
INLINE vec normed(const struct norm *n, ptrdiff_t c, vec gradient, vec before) {
  const vec deviation = before - all(n->mean[c]);
  const vec value = (gradient - all(n->level[c]) - deviation * all(n->share[c])) * all(n->scale[c]);
  return (vec)((mask)value & n->places);
}

/* Spreads a window's gradients over the map, or adds them; `before`: the map of the norm, if there is one. */
INLINE void spread(const struct shapes *s, const vec *restrict gy, const vec *restrict y,
                   const uint8_t *restrict argmax, const struct norm *restrict norm, const vec *restrict before,
                   vec *restrict window, ptrdiff_t columns, const ptrdiff_t h0, const ptrdiff_t h1, const ptrdiff_t w0,
                   const ptrdiff_t w1, const ptrdiff_t side, const int writes, const int norms) {
  const ptrdiff_t channels = s->outputs;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const vec gradient = gated(s, gy[c], y ? y + c : 0);
    const mask index = index_at(argmax + c * V);
    for (ptrdiff_t h = h0; h < h1; h++)
      for (ptrdiff_t w = w0; w < w1; w++) {
        const vec own = (vec)((mask)gradient & (index == (word)(h * side + w)));
        const ptrdiff_t at = (h * columns + w) * channels + c;
        if (norms)
          window[at] = normed(norm, c, writes ? own : window[at] + own, before[at]);
        else
          window[at] = writes ? own : window[at] + own;
      }
  }
}

/* The gradient of a block's maps before pooling, and before batch norm if there is one. */
static void max_pool_gradient(const struct shapes *s, const struct pool *p, const vec *restrict gy,
                              const vec *restrict y, const uint8_t *restrict argmax, const struct norm *norm,
                              vec *restrict gx, ptrdiff_t rows, ptrdiff_t columns) {
  const ptrdiff_t channels = s->outputs;
  const int writes = partitions(p, rows, columns);
  if (!writes) memset(gx, 0, sizeof(vec) * rows * columns * channels);
  for (ptrdiff_t r = 0; r < p->rows; r++)
    for (ptrdiff_t q = 0; q < p->columns; q++, gy += channels, y = y ? y + channels : 0, argmax += channels * V) {
      const struct window w = window_of(p, r, q, rows, columns);
      const ptrdiff_t at = (w.top * columns + w.left) * channels;
      const vec *before = norm ? norm->before + at : 0;
      if (writes && norm && p->kernel[1] == 2 && is_square(&w, 2))
        spread(s, gy, y, argmax, norm, before, gx + at, columns, 0, 2, 0, 2, 2, 1, 1);
      else if (writes && p->kernel[1] == 2 && is_square(&w, 2))
        spread(s, gy, y, argmax, 0, 0, gx + at, columns, 0, 2, 0, 2, 2, 1, 0);
      else
        spread(s, gy, y, argmax, 0, 0, gx + at, columns, w.h0, w.h1, w.w0, w.w1, p->kernel[1], writes, 0);
    }
  if (!norm || (writes && p->kernel[0] == 2 && p->kernel[1] == 2)) return;
  for (ptrdiff_t i = 0; i < rows * columns; i++)
    for (ptrdiff_t c = 0; c < channels; c++)
      gx[i * channels + c] = normed(norm, c, gx[i * channels + c], norm->before[i * channels + c]);
}
