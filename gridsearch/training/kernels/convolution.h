/* The three products of a convolution over one block of images: its sums, and the gradients of its input and weights.
 *
 * The sums and the input's gradient are one and the same: for each pixel,
     a sum over some taps of the other map.  Tables
 * say which (see convolution_tables.py): pixels with the same taps are taken some at a time, so that neither zeros of
 * the padding nor the gaps of a stride are ever multiplied.  Of small maps few pixels have the same taps: there two
 * blocks are taken at a time. */

#pragma once

#include "narrow.h"

/* (channels, pixels) at a time: their sums and what they are made of fill the registers. */
#if SUMS == 24
#define MOST_PIXELS 12
#define TILES(X) X(1, 12) X(2, 12) X(3, 8) X(4, 6) X(5, 4) X(6, 4) X(8, 3) X(10, 2) X(12, 2)
#else
#define MOST_PIXELS 8
#define TILES(X) X(1, 8) X(2, 6) X(3, 4) X(4, 3) X(5, 2) X(6, 2)
#endif
#define MOST_CHANNELS 12

struct run { /* numbers beside each other in the map and in the weights */
  int32_t map, weights, count;
};

struct tile { /* pixels with the same taps; places in vectors */
  int32_t first_run, runs, from[12], to[12];
};

struct product { /* all tables of one product */
  const struct tile *tiles;
  const int32_t *strips; /* first tile of each strip of rows */
  const struct run *runs;
  int64_t strip_count, pairs; /* behind the last strip: tiles with the pixels of two blocks */
  int64_t together;           /* blocks that are taken before the weights of the next tile's channels are read */
  int64_t channels, narrows;  /* channels of a tile; whether bfloat16 is multiplied */
  int64_t patches;       /* at a time in winograd.h; 0 where that is not used */
};

#define TILE_SUMS(KIND, CHANNELS, PIXELS)                                                                            \
  INLINE void sums_##KIND##CHANNELS##of##PIXELS(const vec *restrict map, const REAL *restrict weights,               \
                                                const REAL *restrict bias, vec *restrict to,                         \
                                                const struct tile *restrict tile, const struct run *restrict run,    \
                                                ptrdiff_t outputs, int adds) {                                       \
    const vec *pixel[PIXELS];                                                                                        \
    UNROLL for (int p = 0; p < PIXELS; p++) pixel[p] = map + tile->from[p];                                          \
    vec sum[CHANNELS][PIXELS];                                                                                       \
    UNROLL for (int o = 0; o < CHANNELS; o++)                                                                        \
      UNROLL for (int p = 0; p < PIXELS; p++) sum[o][p] = all(bias[o]);                                              \
    for (int r = 0; r < tile->runs; r++, run++) {                                                                    \
      const REAL *w = weights + (ptrdiff_t)run->weights * CHANNELS;                                                  \
      const ptrdiff_t end = run->map + (ptrdiff_t)run->count;                                                        \
      for (ptrdiff_t c = run->map; c < end; c++, w += CHANNELS) {                                                    \
        vec weight[CHANNELS], number[PIXELS];                                                                        \
        if (CHANNELS < PIXELS)                                                                                       \
          UNROLL for (int o = 0; o < CHANNELS; o++) {                                                                \
            weight[o] = all(w[o]);                                                                                   \
            IN_REGISTER(weight[o]);                                                                                  \
          }                                                                                                          \
        UNROLL for (int p = 0; p < PIXELS; p++) {                                                                    \
          number[p] = pixel[p][c];                                                                                   \
          IN_REGISTER(number[p]);                                                                                    \
          if (CHANNELS < PIXELS)                                                                                     \
            UNROLL for (int o = 0; o < CHANNELS; o++) sum[o][p] = KIND(sum[o][p], weight[o], number[p]);             \
        }                                                                                                            \
        if (CHANNELS >= PIXELS)                                                                                      \
          UNROLL for (int o = 0; o < CHANNELS; o++) {                                                                \
            weight[o] = all(w[o]);                                                                                   \
            UNROLL for (int p = 0; p < PIXELS; p++) sum[o][p] = KIND(sum[o][p], weight[o], number[p]);               \
          }                                                                                                          \
      }                                                                                                              \
    }                                                                                                                \
    UNROLL for (int p = 0; p < PIXELS; p++) {                                                                        \
      if (p > 0 && tile->to[p] == tile->to[p - 1]) break; /* the last one again */                                   \
      vec *own = to + tile->to[p];                                                                                   \
      UNROLL for (int o = 0; o < CHANNELS; o++)                                                                      \
        if (o < outputs) own[o] = adds ? own[o] + sum[o][p] : sum[o][p];                                             \
    }                                                                                                                \
  }

/* Pixels with the same taps, some at a time; one that is alone is not computed as if it were as many. */
#define TILE_OF(KIND, CHANNELS, PIXELS)                                                                              \
  TILE_SUMS(KIND, CHANNELS, PIXELS)                                                                                  \
  TILE_SUMS(KIND, CHANNELS, 1)                                                                                       \
  static void tile_##KIND##CHANNELS(const vec *restrict map, const REAL *restrict weights, const REAL *restrict bias,\
                                    vec *restrict to, const struct tile *restrict tile, ptrdiff_t count,             \
                                    const struct run *restrict runs, ptrdiff_t outputs, int adds) {                  \
    for (ptrdiff_t i = 0; i < count; i++, tile++) {                                                                  \
      const struct run *own = runs + tile->first_run;                                                                \
      if (tile->to[0] == tile->to[1])                                                                                \
        sums_##KIND##CHANNELS##of1(map, weights, bias, to, tile, own, outputs, adds);                                \
      else                                                                                                           \
        sums_##KIND##CHANNELS##of##PIXELS(map, weights, bias, to, tile, own, outputs, adds);                         \
    }                                                                                                                \
  }

#define TILE(CHANNELS, PIXELS) TILE_OF(whole, CHANNELS, PIXELS)
TILES(TILE)
#if NARROW
#define NARROW_TILE(CHANNELS, PIXELS) TILE_OF(narrow, CHANNELS, PIXELS)
TILES(NARROW_TILE)
#endif

typedef void (*tile_function)(const vec *, const REAL *, const REAL *, vec *, const struct tile *, ptrdiff_t,
                              const struct run *, ptrdiff_t, int);

static tile_function tile_of(ptrdiff_t channels, int narrows) {
#if NARROW
#define CHOOSE(CHANNELS, PIXELS)                                                                                      \
  case CHANNELS: return narrows ? tile_narrow##CHANNELS : tile_whole##CHANNELS;
#else
#define CHOOSE(CHANNELS, PIXELS)                                                                                      \
  case CHANNELS: return tile_whole##CHANNELS;
#endif
  (void)narrows;
  switch (channels) { TILES(CHOOSE) }
  return 0;
}

/* How many pixels a tile of so many channels has, or 0 where there is none. */
int64_t tile_pixels(int64_t channels) {
#define PIXELS_OF(CHANNELS, PIXELS)                                                                                   \
  case CHANNELS: return PIXELS;
  switch (channels) { TILES(PIXELS_OF) }
  return 0;
}

/* Weights [groups][tiles of outputs][taps][inputs][channels of a tile], and biases [groups][all tiles' channels]. */
static ptrdiff_t packed_outputs(const struct product *p, ptrdiff_t outputs) {
  return CEIL_DIV(outputs, p->channels) * p->channels;
}

/* to [blocks][rows][columns][outputs]: all pixels' sums over the taps of map; inputs in the words of both.  Blocks of map and
 * to are `read` and `written` vectors apart. */
static void multiply(const struct product *p, const vec *map, const REAL *weights, const REAL *bias, vec *to,
                     ptrdiff_t groups, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t taps, int adds, ptrdiff_t blocks,
                     ptrdiff_t read, ptrdiff_t written) {
  const tile_function tile = tile_of(p->channels, (int)p->narrows);
  const ptrdiff_t padded = packed_outputs(p, outputs), end = p->strips[p->strip_count];
  for (ptrdiff_t g = 0; g < groups; g++, map += inputs, to += outputs)
    for (ptrdiff_t s = 0; s < p->strip_count; s++)
      for (ptrdiff_t o = 0; o < outputs; o += p->channels) {
        const REAL *w = weights + (g * padded + o) * taps * inputs, *b = bias + g * padded + o;
        ptrdiff_t block = 0;
        for (; p->pairs && block + 1 < blocks; block += 2)
          tile(map + block * read, w, b, to + block * written + o, p->tiles + end, p->pairs, p->runs, outputs - o, adds);
        for (; block < blocks; block++)
          tile(map + block * read, w, b, to + block * written + o, p->tiles + p->strips[s],
               p->strips[s + 1] - p->strips[s], p->runs, outputs - o, adds);
      }
}

struct steps { /* from one block, row or column to the next, in vectors */
  ptrdiff_t map_block, map_row, map_column, gradient_block, gradient_row;
};

/* Gradients of the weights: sums over pixels and images, (outputs, inputs) at a time. */
#define GRADIENT_OF(KIND, OUTPUTS, INPUTS)                                                                                     \
  static void gradient_##KIND##OUTPUTS(const vec *restrict map, const vec *restrict gradient, ptrdiff_t blocks,            \
                                 ptrdiff_t rows, ptrdiff_t columns, const struct steps *restrict by,                 \
                                 vec *restrict sums) {                                                               \
    enum { ALL = CEIL_DIV(OUTPUTS * INPUTS, V) * V };                                                                \
    vec sum[ALL];                                                                                                    \
    UNROLL for (int i = 0; i < ALL; i++) sum[i] = (vec){0};                                                          \
    for (; blocks; blocks--, map += by->map_block, gradient += by->gradient_block)                                   \
      for (ptrdiff_t r = 0; r < rows; r++) {                                                                         \
        const vec *x = map + r * by->map_row, *d = gradient + r * by->gradient_row;                                  \
        for (ptrdiff_t c = 0; c < columns; c++, x += by->map_column, d += OUTPUTS) {                                 \
          vec factor[OUTPUTS], number[INPUTS];                                                                       \
          if (OUTPUTS < INPUTS)                                                                                      \
            UNROLL for (int o = 0; o < OUTPUTS; o++) {                                                               \
              factor[o] = d[o];                                                                                      \
              IN_REGISTER(factor[o]);                                                                                \
            }                                                                                                        \
          UNROLL for (int i = 0; i < INPUTS; i++) {                                                                  \
            number[i] = x[i];                                                                                        \
            IN_REGISTER(number[i]);                                                                                  \
            if (OUTPUTS < INPUTS)                                                                                    \
              UNROLL for (int o = 0; o < OUTPUTS; o++)                                                               \
                sum[o * INPUTS + i] = KIND(sum[o * INPUTS + i], factor[o], number[i]);                               \
          }                                                                                                          \
          if (OUTPUTS >= INPUTS)                                                                                     \
            UNROLL for (int o = 0; o < OUTPUTS; o++) {                                                               \
              factor[o] = d[o];                                                                                      \
              IN_REGISTER(factor[o]);                                                                                \
              UNROLL for (int i = 0; i < INPUTS; i++)                                                                \
                sum[o * INPUTS + i] = KIND(sum[o * INPUTS + i], factor[o], number[i]);                               \
            }                                                                                                        \
        }                                                                                                            \
      }                                                                                                              \
    UNROLL for (int part = 0; part < ALL; part += V) {                                                               \
      vec level[V];                                                                                                  \
      UNROLL for (int i = 0; i < V; i++) level[i] = sum[part + i];                                                   \
      UNROLL for (int left = V / 2; left >= 1; left /= 2)                                                            \
        UNROLL for (int i = 0; i < left; i++) level[i] = NEIGHBOURS(level[2 * i], level[2 * i + 1]);                 \
      sums[part / V] += level[0];                                                                                    \
    }                                                                                                                \
  }
#define GRADIENT(OUTPUTS, INPUTS) GRADIENT_OF(whole, OUTPUTS, INPUTS)
TILES(GRADIENT)
#if NARROW
#define NARROW_GRADIENT(OUTPUTS, INPUTS) GRADIENT_OF(narrow, OUTPUTS, INPUTS)
TILES(NARROW_GRADIENT)
#endif

typedef void (*gradient_function)(const vec *, const vec *, ptrdiff_t, ptrdiff_t, ptrdiff_t, const struct steps *,
                                  vec *);

static gradient_function gradient_of(ptrdiff_t outputs, int narrows) {
#if NARROW
#define CHOOSE_GRADIENT(OUTPUTS, INPUTS)                                                                              \
  case OUTPUTS: return narrows ? gradient_narrow##OUTPUTS : gradient_whole##OUTPUTS;
#else
#define CHOOSE_GRADIENT(OUTPUTS, INPUTS)                                                                              \
  case OUTPUTS: return gradient_whole##OUTPUTS;
#endif
  (void)narrows;
  switch (outputs) { TILES(CHOOSE_GRADIENT) }
  return 0;
}
