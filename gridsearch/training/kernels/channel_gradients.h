/* Gradients of the weights in vectors of input channels: sums over one image after the other.
 *
 * Vectors of images (convolution.h) have to be summed up to one number each at the end, which takes longer than the
 * products of few pixels.  Here the input is turned instead, once for all outputs and taps; too few channels would leave
 * vectors empty. */

#pragma once

#include "winograd.h"

/* Input channels of a tile. */
int64_t channels_filled(void) { return CHANNEL_VECTORS * V; }

struct channel_steps { /* from one block, row or pixel to the next, in vectors */
  ptrdiff_t map[3], gradient[3];
};

/* Rows from `first` on of some blocks: to [tiles of inputs][blocks][pixels][images][CHANNEL_VECTORS]; a last tile's missing
 * channels are zeros. */
static void turn_map(const struct shapes *s, const vec *x, ptrdiff_t blocks, ptrdiff_t first, ptrdiff_t rows, vec *to) {
  for (ptrdiff_t c = 0; c < s->channels; c += V * CHANNEL_VECTORS)
    for (ptrdiff_t b = 0; b < blocks; b++)
      for (ptrdiff_t p = first * s->width; p < (first + rows) * s->width; p++, to += V * CHANNEL_VECTORS)
        for (ptrdiff_t i = 0; i < CHANNEL_VECTORS; i++) {
          vec turned[V];
          transpose(x + b * entered(s) + p * s->channels + c + i * V, s->channels - c - i * V, turned);
          for (int v = 0; v < V; v++) to[v * CHANNEL_VECTORS + i] = turned[v];
        }
}

/* So many pixels in a row: to [tiles of outputs][pixels][CHANNEL_OUTPUTS]; a last tile's missing outputs are zeros. */
static void pack_outputs(const struct shapes *s, const vec *gradient, ptrdiff_t pixels, vec *to) {
  for (ptrdiff_t o = 0; o < s->outputs; o += CHANNEL_OUTPUTS)
    for (ptrdiff_t p = 0; p < pixels; p++)
      for (ptrdiff_t i = o; i < o + CHANNEL_OUTPUTS; i++) *to++ = i < s->outputs ? gradient[p * s->outputs + i] : (vec){0};
}

/* Writes sums [outputs][vectors of inputs], whose rows are `by_output` vectors apart, or adds to them. */
static void add_channels(const vec *restrict map, const vec *restrict gradient, ptrdiff_t blocks, ptrdiff_t rows,
                         ptrdiff_t columns, const struct channel_steps *restrict by, ptrdiff_t outputs,
                         vec *restrict sums, ptrdiff_t by_output, int adds) {
  vec sum[CHANNEL_OUTPUTS][CHANNEL_VECTORS];
  UNROLL for (int o = 0; o < CHANNEL_OUTPUTS; o++)
    UNROLL for (int i = 0; i < CHANNEL_VECTORS; i++) sum[o][i] = (vec){0};
  for (ptrdiff_t b = 0; b < blocks; b++)
    for (ptrdiff_t r = 0; r < rows; r++)
      for (ptrdiff_t c = 0; c < columns; c++) {
        const vec *x = map + b * by->map[0] + r * by->map[1] + c * by->map[2];
        const REAL *d = (const REAL *)(gradient + b * by->gradient[0] + r * by->gradient[1] + c * by->gradient[2]);
        for (int v = 0; v < V; v++, x += CHANNEL_VECTORS, d++) {
          vec number[CHANNEL_VECTORS];
          UNROLL for (int i = 0; i < CHANNEL_VECTORS; i++) {
            number[i] = x[i];
            IN_REGISTER(number[i]);
          }
          UNROLL for (int o = 0; o < CHANNEL_OUTPUTS; o++) {
            const vec factor = all(d[o * V]);
            UNROLL for (int i = 0; i < CHANNEL_VECTORS; i++) sum[o][i] += factor * number[i];
          }
        }
      }
  UNROLL for (int o = 0; o < CHANNEL_OUTPUTS; o++)
    UNROLL for (int i = 0; i < CHANNEL_VECTORS; i++)
      if (o < outputs) sums[o * by_output + i] = adds ? sums[o * by_output + i] + sum[o][i] : sum[o][i];
}

/* Some blocks' share of w->sums [taps][outputs][tiles of inputs][CHANNEL_VECTORS], which is added to those that are there;
 * there are several blocks only where a chunk is the whole map. */
static void channel_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                              const struct workspace *w, int adds) {
  const ptrdiff_t tiles = channel_tiles(s), by_output = tiles * CHANNEL_VECTORS;
  const ptrdiff_t column = V * CHANNEL_VECTORS, row = s->width * column;
  for (ptrdiff_t h = 0; h < s->rows; h += s->chunk) {
    const ptrdiff_t chunk = MIN(s->chunk, s->rows - h), pixels = chunk * s->columns, top = h * s->step[0] - s->padding[0];
    const ptrdiff_t first = MAX(top, 0), end = top + (chunk - 1) * s->step[0] + (s->kernel[0] - 1) * s->dilation[0] + 1;
    const ptrdiff_t rows = MIN(end, s->height) - first;
    if (rows <= 0) continue; /* of padding alone */
    const struct channel_steps by = {{rows * row, s->step[0] * row, s->step[1] * column},
                                     {pixels * CHANNEL_OUTPUTS, s->columns * CHANNEL_OUTPUTS, CHANNEL_OUTPUTS}};
    turn_map(s, x, blocks, first, rows, w->map);
    pack_outputs(s, gradient + h * s->columns * s->outputs, blocks * pixels, w->gradients);
    for (ptrdiff_t k = 0; k < taps(s); k++) {
      const ptrdiff_t down = top + k / s->kernel[1] * s->dilation[0];
      const ptrdiff_t right = k % s->kernel[1] * s->dilation[1] - s->padding[1];
      ptrdiff_t h0, h1, w0, w1;
      bounds(down, s->step[0], chunk, s->height, &h0, &h1);
      bounds(right, s->step[1], s->columns, s->width, &w0, &w1);
      vec *sums = w->sums + k * s->outputs * by_output;
      if (h0 >= h1 || w0 >= w1) {
        if (!adds) memset(sums, 0, sizeof(vec) * s->outputs * by_output);
        continue;
      }
      const vec *map = w->map + (h0 * s->step[0] + down - first) * row + (w0 * s->step[1] + right) * column;
      const vec *own = w->gradients + (h0 * s->columns + w0) * CHANNEL_OUTPUTS;
      for (ptrdiff_t t = 0; t < tiles; t++)
        for (ptrdiff_t o = 0; o < s->outputs; o += CHANNEL_OUTPUTS)
          add_channels(map + t * blocks * rows * row, own + o * blocks * pixels, blocks, h1 - h0, w1 - w0, &by,
                       s->outputs - o, sums + o * by_output + t * CHANNEL_VECTORS, by_output, adds);
    }
    adds = 1;
  }
  if (!adds) memset(w->sums, 0, w->sums_bytes);
}

/* Writes them as torch has them. */
static void unpack_channels(const struct shapes *s, const struct workspace *w, REAL *to) {
  const ptrdiff_t whole = s->whole[0] * s->whole[1], padded = channel_tiles(s) * CHANNEL_VECTORS * V;
  const ptrdiff_t by_tap = s->outputs * padded;
  const REAL *from = (const REAL *)w->sums;
  for (ptrdiff_t o = 0; o < s->outputs; o++, to += s->channels * whole, from += padded) {
    if (whole == 1) {
      memcpy(to, from, sizeof(REAL) * s->channels);
      continue;
    }
    ptrdiff_t k = 0;
    for (; whole == taps(s) && k + V <= whole; k += V) /* as many taps of as many channels at a time */
      for (ptrdiff_t c = 0; c < s->channels; c += V) {
        vec numbers[V];
        UNROLL for (int i = 0; i < V; i++) numbers[i] = *(const unaligned_vec *)(from + (k + i) * by_tap + c);
        exchange(numbers);
        for (ptrdiff_t i = 0; i < MIN(V, s->channels - c); i++) *(unaligned_vec *)(to + (c + i) * whole + k) = numbers[i];
      }
    for (; k < taps(s); k++) {
      REAL *number = to + k / s->kernel[1] * s->whole[1] + k % s->kernel[1];
      for (ptrdiff_t c = 0; c < s->channels; c++) number[c * whole] = from[k * by_tap + c];
    }
  }
}
