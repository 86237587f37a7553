/* Batch norm over blocks: statistics, and the gradients. */

#pragma once

#include <math.h>

#include "map_pooling.h"

/* Pixels whose numbers are added up before they are added to a channel's sum, which is in memory. */
enum { TOGETHER = 4 };

/* Adds a block's images to each channel's count, mean and sum of squared deviations: statistics [2][outputs]. */
static void add_statistics(const struct shapes *s, const vec *x, mask places, double before, double *mean,
                           double *squares, vec *partial) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  double here = 0;
  for (int i = 0; i < V; i++) here += places[i] ? pixels : 0;
  for (ptrdiff_t c = 0; c < channels; c++) partial[c] = (vec){0};
  ptrdiff_t p = 0;
  for (; p + TOGETHER <= pixels; p += TOGETHER)
    for (ptrdiff_t c = 0; c < channels; c++) {
      vec sum = {0};
      UNROLL for (int i = 0; i < TOGETHER; i++) sum += x[(p + i) * channels + c];
      partial[c] += sum;
    }
  for (; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) partial[c] += x[p * channels + c];
  vec *deviation = partial + channels;
  for (ptrdiff_t c = 0; c < channels; c++) {
    partial[c] = all((REAL)(sum_of((vec)((mask)partial[c] & places)) / here));
    deviation[c] = (vec){0};
  }
  p = 0;
  for (; p + TOGETHER <= pixels; p += TOGETHER)
    for (ptrdiff_t c = 0; c < channels; c++) {
      vec sum = {0};
      UNROLL for (int i = 0; i < TOGETHER; i++) {
        const vec d = x[(p + i) * channels + c] - partial[c];
        sum += d * d;
      }
      deviation[c] += sum;
    }
  for (; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) {
      const vec d = x[p * channels + c] - partial[c];
      deviation[c] += d * d;
    }
  for (ptrdiff_t c = 0; c < channels; c++) {
    const double own = partial[c][0], apart = own - mean[c], share = here / (before + here);
    squares[c] += sum_of((vec)((mask)deviation[c] & places)) + apart * apart * before * share;
    mean[c] += apart * share;
  }
}

/* Scale and shift of each channel: channel [2][outputs]. */
static void affine_of(const struct shapes *s, const REAL *mean, const REAL *scale, const struct op_args *a,
                      REAL *channel) {
  const ptrdiff_t at = 2 * s->convolves;
  const REAL *weight = s->affine ? a->params[at] : 0, *bias = s->affine ? a->params[at + 1] : 0;
  for (ptrdiff_t c = 0; c < s->outputs; c++) {
    const REAL own = scale[c] * (weight ? weight[c] : 1);
    channel[c] = own;
    channel[s->outputs + c] = (bias ? bias[c] : 0) - mean[c] * own;
  }
}

/* Each channel's statistics of the whole batch, as `saved` keeps them; running ones move. */
static void close_statistics(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                             const struct saved *saved) {
  const double *mean = w->statistics, *squares = mean + s->outputs, count = (double)a->images * middle_pixels(s);
  REAL *running_mean = a->buffers[0], *running_var = a->buffers[1];
  /* the count of batches moves after the step */
  const double momentum = s->momentum < 0 ? 1.0 / (double)(1 + *(const int64_t *)a->buffers[2]) : s->momentum;
  for (ptrdiff_t c = 0; c < s->outputs; c++) {
    saved->mean[c] = (REAL)mean[c];
    saved->scale[c] = (REAL)(1 / sqrt(squares[c] / count + s->eps));
    running_mean[c] = (REAL)(momentum * mean[c] + (1 - momentum) * running_mean[c]);
    running_var[c] = (REAL)(momentum * (squares[c] / (count - 1)) + (1 - momentum) * running_var[c]);
  }
}

/* Adds a window's gradients, and those by the deviations from the mean of the values that they belong to. */
INLINE void add_window_sums(const struct shapes *s, const vec *restrict gy, const vec *restrict y,
                            const uint8_t *restrict argmax, const vec *restrict window, ptrdiff_t columns,
                            const ptrdiff_t h0, const ptrdiff_t h1, const ptrdiff_t w0, const ptrdiff_t w1,
                            const ptrdiff_t side, const REAL *restrict mean, vec *restrict first,
                            vec *restrict second) {
  const ptrdiff_t channels = s->outputs;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const vec gradient = gated(s, gy[c], y ? y + c : 0);
    const mask index = index_at(argmax + c * V);
    vec value = {0};
    for (ptrdiff_t h = h0; h < h1; h++)
      for (ptrdiff_t w = w0; w < w1; w++)
        value = where(index == (word)(h * side + w), window[(h * columns + w) * channels + c], value);
    first[c] += gradient;
    second[c] += gradient * (value - all(mean[c]));
  }
}

/* The same for some pixels of maps without pooling. */
INLINE void add_pixel_sums(const struct shapes *s, const vec *restrict gy, const vec *restrict y,
                           const vec *restrict before, const ptrdiff_t count, const REAL *restrict mean,
                           vec *restrict first, vec *restrict second) {
  const ptrdiff_t channels = s->outputs;
  for (ptrdiff_t c = 0; c < channels; c++) {
    vec sum = {0}, products = {0};
    UNROLL for (ptrdiff_t i = 0; i < count; i++) {
      const ptrdiff_t at = i * channels + c;
      const vec gradient = gated(s, gy[at], y ? y + at : 0);
      sum += gradient;
      products += gradient * (before[at] - all(mean[c]));
    }
    first[c] += sum;
    second[c] += products;
  }
}

/* Adds a block's share of each channel's sums of gradients, and of gradients by deviations from the mean. */
static void add_gradient_sums(const struct shapes *s, const vec *gy, const vec *y, const vec *before,
                              const uint8_t *argmax, const struct workspace *w, const REAL *mean) {
  const struct pool *p = &s->pool[AFTER];
  const ptrdiff_t channels = s->outputs, pixels = result(s) / channels;
  const ptrdiff_t columns = s->pool[BEFORE].is ? s->pool[BEFORE].columns : s->columns;
  vec *first = w->partial, *second = first + channels;
  for (ptrdiff_t c = 0; c < 2 * channels; c++) first[c] = (vec){0};
  ptrdiff_t q = 0, some;
  for (; !p->is && q < pixels; gy += some * channels, y = y ? y + some * channels : 0, q += some) {
    some = pixels - q >= TOGETHER ? TOGETHER : 1;
    const vec *own = before + q * channels;
    if (some == TOGETHER)
      add_pixel_sums(s, gy, y, own, TOGETHER, mean, first, second);
    else
      add_pixel_sums(s, gy, y, own, 1, mean, first, second);
  }
  for (; q < pixels; q++, gy += channels, y = y ? y + channels : 0) {
    const struct window v = window_of(p, q / p->columns, q % p->columns, middle_pixels(s) / columns, columns);
    const vec *window = before + (v.top * columns + v.left) * channels;
    const uint8_t *own = argmax + q * channels * V;
    if (p->kernel[1] == 2 && is_square(&v, 2))
      add_window_sums(s, gy, y, own, window, columns, 0, 2, 0, 2, 2, mean, first, second);
    else
      add_window_sums(s, gy, y, own, window, columns, v.h0, v.h1, v.w0, v.w1, p->kernel[1], mean, first, second);
  }
  for (ptrdiff_t c = 0; c < channels; c++) {
    w->statistics[c] += sum_of(first[c]);
    w->statistics[channels + c] += sum_of(second[c]);
  }
}

/* The gradients of a block's maps before batch norm, or of the convolution where there is none.  Maps that were added to
 * these have them as they are before batch norm. */
INLINE void pixel_gradients_of(const struct shapes *s, const vec *gy, const vec *restrict y, const struct norm *restrict norm,
                               vec *added, int adds, vec *restrict to, const int norms) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  for (ptrdiff_t p = 0; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) {
      const ptrdiff_t at = p * channels + c;
      const vec gradient = gated(s, gy[at], y ? y + at : 0);
      if (added) added[at] = adds ? added[at] + gradient : gradient;
      to[at] = norms ? normed(norm, c, gradient, norm->before[at]) : gradient;
    }
}

static void pixel_gradients(const struct shapes *s, const vec *gy, const vec *y, const struct norm *norm, vec *added,
                            int adds, vec *to) {
  if (norm && added)
    pixel_gradients_of(s, gy, y, norm, added, adds, to, 1);
  else if (norm)
    pixel_gradients_of(s, gy, y, norm, 0, 0, to, 1);
  else
    pixel_gradients_of(s, gy, y, 0, added, adds, to, 0);
}

/* Batch norm's own gradients, and what `normed` needs of each channel. */
static void norm_gradients(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                           const struct saved *saved, ptrdiff_t blocks) {
  const ptrdiff_t channels = s->outputs;
  const double count = (double)a->images * middle_pixels(s);
  const int gates = (int)s->activates;
  memset(w->statistics, 0, sizeof(double) * 2 * channels);
  for (ptrdiff_t b = 0; b < blocks; b++)
    add_gradient_sums(s, (const vec *)a->gy + b * result(s), gates ? (const vec *)a->y + b * result(s) : 0,
                      saved->before + b * middle(s), saved->argmax[AFTER] + b * result(s) * V, w, saved->mean);
  const ptrdiff_t at = 2 * s->convolves;
  const REAL *weight = s->affine ? a->params[at] : 0;
  REAL *level = w->channel, *share = level + channels, *scale = share + channels;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const double invstd = saved->scale[c], first = w->statistics[c], second = w->statistics[channels + c];
    level[c] = (REAL)(first / count);
    share[c] = (REAL)(second * invstd * invstd / count);
    scale[c] = (REAL)invstd * (weight ? weight[c] : 1);
    if (s->affine) ((REAL *)a->grads[at])[c] = (REAL)(second * invstd), ((REAL *)a->grads[at + 1])[c] = (REAL)first;
  }
}
