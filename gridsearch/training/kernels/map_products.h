/* A convolution's products for some blocks, and how the gradients of its weights are put in order. */

#pragma once

#include "depthwise.h"
#include "packed_weights.h"

/* `multiply` of some blocks, rounded to bfloat16 first where that is multiplied. */
static void multiply_blocks(const struct shapes *s, const struct product *p, const vec *map, const struct workspace *w,
                            vec *to, ptrdiff_t blocks, int adds) {
  const int turned = p == &s->data;
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups;
  const ptrdiff_t inputs = turned ? out : own, outputs = turned ? own : out;
  const ptrdiff_t read = turned ? convolved(s) : entered(s), written = turned ? entered(s) : convolved(s);
  if (p->patches) {
    multiply_patches(s, p, map, w, to, blocks, turned, adds);
    return;
  }
  if (is_depthwise(s)) {
    for (; blocks; blocks--, map += read, to += written)
      multiply_depthwise(p, map, w->weights, w->bias, to, s->channels, taps(s), adds);
    return;
  }
  const ptrdiff_t pixels = read / (inputs * s->groups), all_words = pixels * s->groups * words_of(p, inputs);
  for (ptrdiff_t some; blocks; blocks -= some, map += some * read, to += some * written) {
    some = MIN(blocks, p->together);
    if (p->narrows) {
      vec *word = w->words;
      for (ptrdiff_t i = 0; i < some * read; i += inputs)
        for (ptrdiff_t c = 0; c < inputs; c += 2)
          *word++ = words(map[i + c], c + 1 < inputs ? map[i + c + 1] : (vec){0});
    }
    multiply(p, p->narrows ? w->words : map, w->weights, w->bias, to, s->groups, words_of(p, inputs), outputs, taps(s),
             adds, some, p->narrows ? all_words : read, written);
  }
}

/* A chunk of the gradients for `weight_gradients`: [tiles of outputs][rows][columns][outputs of a tile]. */
static void pack_gradients(const struct shapes *s, const vec *gradient, vec *to, ptrdiff_t rows, ptrdiff_t outer) {
  const ptrdiff_t n = s->gradient_channels, out = s->outputs / s->groups, each = s->narrows ? 2 : 1;
  for (ptrdiff_t o = 0; o < outer * n; o += n)
    for (ptrdiff_t r = 0; r < rows; r++)
      for (ptrdiff_t c = 0; c < s->columns; c += each, to += n) {
        const vec *from = gradient + (r * s->columns + c) * s->outputs + o;
        const ptrdiff_t there = MIN(n, out - o);
        if (!s->narrows)
          for (ptrdiff_t j = 0; j < there; j++) to[j] = from[j];
        else if (c + 1 < s->columns)
          for (ptrdiff_t j = 0; j < there; j++) to[j] = words(from[j], from[j + s->outputs]);
        else
          for (ptrdiff_t j = 0; j < there; j++) to[j] = words(from[j], (vec){0});
        for (ptrdiff_t j = there; j < n; j++) to[j] = (vec){0};
      }
}

/* Some channels of the rows of the input that a chunk reads: [rows][columns][count], with the padding's zeros.  A word
 * has a column and the one that the next column of the result reads in its place. */
static void pack_map(const struct shapes *s, const vec *x, vec *to, ptrdiff_t top, ptrdiff_t rows, ptrdiff_t columns,
                     ptrdiff_t first, ptrdiff_t count, ptrdiff_t most) {
  for (ptrdiff_t r = top; r < top + rows; r++)
    for (ptrdiff_t c = -s->padding[1]; c < columns - s->padding[1]; c++, to += count) {
      const int inside = r >= 0 && r < s->height && c >= 0 && c < s->width;
      const vec *from = x + (r * s->width + c) * s->channels + first;
      const ptrdiff_t there = inside ? MIN(count, most) : 0;
      for (ptrdiff_t i = 0; i < there; i++) to[i] = from[i];
      for (ptrdiff_t i = there; i < count; i++) to[i] = (vec){0};
      if (!s->narrows) continue;
      const ptrdiff_t next = c + s->step[1];
      const int follows = r >= 0 && r < s->height && next >= 0 && next < s->width;
      for (ptrdiff_t i = 0; i < count; i++)
        to[i] = words(to[i], follows && i < most ? from[s->step[1] * s->channels + i] : (vec){0});
    }
}

/* Some blocks' share of the gradients of the weights, which is added to w->sums; `adds`: sums of other blocks are there. */
static void weight_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                             const struct workspace *w, int adds) {
  if (!adds && !s->by_channel) memset(w->sums, 0, w->sums_bytes);
  if (blocks > 1 && s->chunk < s->rows && !s->patches) { /* only whole maps follow each other */
    for (; blocks; blocks--, x += entered(s), gradient += convolved(s), adds = 1)
      weight_gradients(s, x, gradient, 1, w, adds);
    return;
  }
  if (is_depthwise(s)) {
    for (ptrdiff_t b = 0; b < blocks; b++)
      depthwise_gradients(&s->sums, x + b * entered(s), gradient + b * convolved(s), w->sums, s->channels);
    return;
  }
  if (s->patches) {
    patch_gradients(s, x, gradient, blocks, w);
    return;
  }
  if (s->by_channel) {
    channel_gradients(s, x, gradient, blocks, w, adds);
    return;
  }
  const gradient_function add = gradient_of(s->gradient_channels, (int)s->narrows);
  const ptrdiff_t each = s->narrows ? 2 : 1, across = CEIL_DIV(s->columns, each); /* words of a row */
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, n = s->gradient_channels;
  const ptrdiff_t of_tile = sums_of_tile(s);
  const struct tiling t = tiling_of(s);
  const ptrdiff_t columns = (s->columns - 1) * s->step[1] + (s->kernel[1] - 1) * s->dilation[1] + 1;
  const ptrdiff_t wide = s->merged ? own : t.inputs;
  for (ptrdiff_t g = 0; g < s->groups; g++)
    for (ptrdiff_t h = 0; h < s->rows; h += s->chunk) {
      const ptrdiff_t chunk = MIN(s->chunk, s->rows - h), top = h * s->step[0] - s->padding[0];
      const ptrdiff_t rows = (chunk - 1) * s->step[0] + (s->kernel[0] - 1) * s->dilation[0] + 1;
      /* more blocks than one are taken only where a chunk is the whole map: their pixels then follow each other */
      pack_gradients(s, gradient + h * s->columns * s->outputs + g * out, w->gradients, blocks * chunk, t.outer);
      for (ptrdiff_t i = 0; i < t.middle; i++) {
        for (ptrdiff_t b = 0; b < blocks; b++)
          pack_map(s, x + b * entered(s), w->map + b * rows * columns * wide, top, rows, columns, g * own + i * wide,
                   wide,
                   own - i * wide);
        /* all taps of a tile of outputs in turn: what they read stays in the first cache */
        for (ptrdiff_t o = 0; o < t.outer; o++) {
          vec *sums = w->sums + ((g * t.outer + o) * t.middle + i) * s->kernel[0] * t.inner * of_tile;
          for (ptrdiff_t r = 0; r < s->kernel[0]; r++)
            for (ptrdiff_t j = 0; j < t.inner; j++) {
              ptrdiff_t h0, h1, w0 = 0, w1 = across;
              bounds(top + r * s->dilation[0], s->step[0], chunk, s->height, &h0, &h1);
              const ptrdiff_t left = s->merged ? 0 : j * s->dilation[1];
              if (!s->merged && !s->narrows) /* words of two columns are taken with the padding's zeros */
                bounds(left - s->padding[1], s->step[1], s->columns, s->width, &w0, &w1);
              if (h0 >= h1 || w0 >= w1) continue;
              const vec *map = w->map + ((h0 * s->step[0] + r * s->dilation[0]) * columns + w0 * s->step[1] +
                                         left) * wide +
                               (s->merged ? j * t.inputs : 0);
              const struct steps by = {rows * columns * wide, s->step[0] * columns * wide, each * s->step[1] * wide,
                                       chunk * across * n, across * n};
              const vec *own_gradients = w->gradients + (o * blocks * chunk * across + h0 * across + w0) * n;
              add(map, own_gradients, blocks, h1 - h0, w1 - w0, &by, sums + (r * t.inner + j) * of_tile);
            }
        }
      }
    }
}

/* Writes the gradients of the weights as torch has them. */
static void unpack(const struct shapes *s, const struct workspace *w, REAL *to) {
  if (s->patches) {
    unpack_points(s, w, to);
    return;
  }
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, n = s->gradient_channels;
  const ptrdiff_t whole = s->whole[0] * s->whole[1], of_tile = sums_of_tile(s) * V;
  const struct tiling t = tiling_of(s);
  const REAL *from = (const REAL *)w->sums;
  if (whole != taps(s)) memset(to, 0, sizeof(REAL) * s->outputs * own * whole);
  to += s->first[0] * s->whole[1] + s->first[1];
  if (s->by_channel) {
    unpack_channels(s, w, to);
    return;
  }
  if (is_depthwise(s)) {
    for (ptrdiff_t k = 0; k < taps(s); k++)
      for (ptrdiff_t c = 0; c < s->channels; c++)
        to[c * whole + k / s->kernel[1] * s->whole[1] + k % s->kernel[1]] = (REAL)sum_of(w->sums[k * s->channels + c]);
    return;
  }
  for (ptrdiff_t o = 0; o < s->groups * t.outer; o++) {
    const ptrdiff_t output = o / t.outer * out + o % t.outer * n, outputs = MIN(n, out - o % t.outer * n);
    for (ptrdiff_t m = 0; m < t.middle; m++, from += s->kernel[0] * t.inner * of_tile) {
      const ptrdiff_t inputs = s->merged ? own : MIN(t.inputs, own - m * t.inputs);
      for (ptrdiff_t j = 0; j < outputs; j++) {
        REAL *number = to + ((output + j) * own + m * t.inputs) * whole;
        if (whole == 1 && !s->merged) { /* of wide layers these are many */
          for (ptrdiff_t i = 0; i < inputs; i++) number[i] = from[j * t.inputs + i];
          continue;
        }
        for (ptrdiff_t i = 0; i < inputs; i++, number += whole)
          for (ptrdiff_t c = 0; c < s->kernel[1]; c++) {
            const ptrdiff_t place = c * own + i; /* in a row's tiles, if taps and inputs are summed together */
            const REAL *sum = s->merged ? from + place / t.inputs * of_tile + place % t.inputs : from + c * of_tile + i;
            sum += j * t.inputs;
            for (ptrdiff_t r = 0; r < s->kernel[0]; r++) number[r * s->whole[1] + c] = sum[r * t.inner * of_tile];
          }
      }
    }
  }
}

/* Adds the sums of maps [pixels][channels] of one block to those of each channel. */
static void add_channel_sums(const vec *map, ptrdiff_t pixels, ptrdiff_t channels, const struct workspace *w,
                             double *sums) {
  for (ptrdiff_t c = 0; c < channels; c++) w->partial[c] = (vec){0};
  for (ptrdiff_t p = 0; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) w->partial[c] += map[p * channels + c];
  for (ptrdiff_t c = 0; c < channels; c++) sums[c] += sum_of(w->partial[c]);
}
