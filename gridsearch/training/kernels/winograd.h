/* Convolutions of 3x3 taps by minimal filtering, F(2x2, 3x3): 16 products in place of 36 for 2x2 pixels of the result.
 *
 * S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin and S. Gray, "Fast algorithms for convolutional
 * neural networks", 2016, section 4.1.  A patch is 2x2 pixels of the map that is written, and the 4x4 of the other one
 * that they read.  With d the latter and g the taps of a channel,
 *
 *   result = A' [(G g G') * (B' d B)] A           gradient of g = G' [(A gradient A') * (B' d B)] G
 *
 * where * takes two numbers at the same one of 16 points, and ' transposes.  So at each point there is a product of
 * matrices, channels by patches, and all else are sums.  Here the last rows of A and B have the other sign:
 *
 *        1  0 -1  0         2  0  0
 *   B' = 0  1  1  0    2G = 1  1  1    A' = 1  1  1  0
 *        0 -1  1  0         1 -1  1         0  1 -1  1
 *        0 -1  0  1         0  0  2
 *
 * Some patches are taken at a time, so that their points stay in the core's own cache.  The gradient of the input is
 * the same convolution of the result's gradient, with the taps turned. */

#pragma once

#include "map_shapes.h"

#if SUMS == 24
#define SUMMED_INPUTS(X) X(8) X(10) X(11) X(12) X(13)
#else
#define SUMMED_INPUTS(X) X(4) X(5) X(6)
#endif

/* One row of B' d B: rows a and b of a patch, whose pixels lie `column` apart. */
INLINE void read_row(const vec *restrict a, const vec *restrict b, int plus, ptrdiff_t column, vec *restrict to,
                     ptrdiff_t step, ptrdiff_t channels) {
  for (ptrdiff_t c = 0; c < channels; c++) {
    vec d[4];
    UNROLL for (int i = 0; i < 4; i++)
      d[i] = plus ? a[i * column + c] + b[i * column + c] : a[i * column + c] - b[i * column + c];
    to[c] = d[0] - d[2];
    to[c + step] = d[1] + d[2];
    to[c + 2 * step] = d[2] - d[1];
    to[c + 3 * step] = d[3] - d[1];
  }
}

static void read_patch(const vec *from, ptrdiff_t row, ptrdiff_t column, vec *to, ptrdiff_t step, ptrdiff_t channels) {
  read_row(from, from + 2 * row, 0, column, to, step, channels);
  read_row(from + row, from + 2 * row, 1, column, to + 4 * step, step, channels);
  read_row(from + 2 * row, from + row, 0, column, to + 8 * step, step, channels);
  read_row(from + 3 * row, from + row, 0, column, to + 12 * step, step, channels);
}

enum { SOME = 16 }; /* channels at a time of a patch that reaches into the padding */

/* B' d B of some patches: to [points][patches][channels]. */
static void read_patches(const struct patches *g, const vec *map, ptrdiff_t first, ptrdiff_t count, vec *to,
                         ptrdiff_t step) {
  for (ptrdiff_t t = first; t < first + count; t++, to += g->channels) {
    const ptrdiff_t y = t / g->across * 2 - g->up, x = t % g->across * 2 - g->left;
    if (y >= 0 && x >= 0 && y + 4 <= g->height && x + 4 <= g->width) {
      read_patch(map + (y * g->width + x) * g->channels, g->width * g->channels, g->channels, to, step, g->channels);
      continue;
    }
    for (ptrdiff_t c = 0; c < g->channels; c += SOME) {
      vec patch[16][SOME];
      const ptrdiff_t some = MIN(SOME, g->channels - c);
      for (ptrdiff_t i = 0; i < 16; i++) {
        const ptrdiff_t h = y + i / 4, w = x + i % 4;
        const int inside = h >= 0 && h < g->height && w >= 0 && w < g->width;
        const vec *from = map + (h * g->width + w) * g->channels + c;
        for (ptrdiff_t k = 0; k < some; k++) patch[i][k] = inside ? from[k] : (vec){0};
      }
      read_patch(patch[0], 4 * SOME, SOME, to + c, step, some);
    }
  }
}

/* A' m A of some patches m [points][patches][outputs], the pixels of the result. */
static void write_patches(const struct patches *g, const vec *m, ptrdiff_t step, vec *to, ptrdiff_t first,
                          ptrdiff_t count, int adds) {
  for (ptrdiff_t t = first; t < first + count; t++, m += g->outputs) {
    const ptrdiff_t y = t / g->across * 2, x = t % g->across * 2;
    const int there[4] = {1, x + 1 < g->columns, y + 1 < g->rows, x + 1 < g->columns && y + 1 < g->rows};
    vec *own = to + (y * g->columns + x) * g->outputs;
    for (ptrdiff_t o = 0; o < g->outputs; o++) {
      vec row[2][4], pixel[4];
      UNROLL for (int i = 0; i < 4; i++) {
        const vec *at = m + o + i * step;
        const vec b = at[4 * step], c = at[8 * step];
        row[0][i] = at[0] + (b + c);
        row[1][i] = (b - c) + at[12 * step];
      }
      UNROLL for (int i = 0; i < 2; i++) {
        pixel[2 * i] = row[i][0] + (row[i][1] + row[i][2]);
        pixel[2 * i + 1] = (row[i][1] - row[i][2]) + row[i][3];
      }
      UNROLL for (int i = 0; i < 4; i++) {
        vec *number = own + (i / 2 * g->columns + i % 2) * g->outputs + o;
        if (there[i]) *number = adds ? *number + pixel[i] : pixel[i];
      }
    }
  }
}

/* G g G' of a tile of weights: from [taps][numbers] to [points][numbers], and what is there behind them too. */
static void transform_weights(const REAL *from, ptrdiff_t numbers, REAL *to, ptrdiff_t step, int turned) {
  for (ptrdiff_t n = 0; n < numbers; n += V, from += V, to += V) {
    vec row[4][3];
    UNROLL for (int c = 0; c < 3; c++) {
      const REAL *tap = from + c * numbers;
      const vec middle = *(const unaligned_vec *)(tap + 3 * numbers);
      row[0][c] = *(const unaligned_vec *)(tap + (turned ? 6 : 0) * numbers);
      row[3][c] = *(const unaligned_vec *)(tap + (turned ? 0 : 6) * numbers);
      row[1][c] = ((row[0][c] + row[3][c]) + middle) / 2;
      row[2][c] = ((row[0][c] + row[3][c]) - middle) / 2;
    }
    UNROLL for (int r = 0; r < 4; r++) {
      const vec outer = row[r][0] + row[r][2];
      *(unaligned_vec *)(to + (4 * r) * step) = row[r][0];
      *(unaligned_vec *)(to + (4 * r + 1) * step) = (outer + row[r][1]) / 2;
      *(unaligned_vec *)(to + (4 * r + 2) * step) = (outer - row[r][1]) / 2;
      *(unaligned_vec *)(to + (4 * r + 3) * step) = row[r][2];
    }
  }
}

/* `multiply` patch by patch; weights as `transform_weights` gives them. */
static void multiply_patches(const struct shapes *s, const struct product *p, const vec *map,
                             const struct workspace *w, vec *to, int turned, int adds) {
  const struct patches g = patches_of(s, turned);
  const tile_function tile = tile_of(p->channels, 0);
  const ptrdiff_t most = p->patches, read = point_step(most * g.channels), written = point_step(most * g.outputs);
  vec *products = w->points + 16 * read;
  for (ptrdiff_t t = 0; t < g.count; t += most) {
    const ptrdiff_t count = MIN(most, g.count - t);
    const int last = t + most >= g.count; /* has tiles of its own, which may be fewer */
    read_patches(&g, map, t, count, w->points, read);
    for (ptrdiff_t k = 0; k < 16; k++)
      for (ptrdiff_t o = 0; o < g.outputs; o += p->channels)
        /* what is added at point 5 alone is added to all four pixels */
        tile(w->points + k * read, w->weights + k * weights_step(p, g.channels, g.outputs) + o * g.channels,
             k == 5 ? w->bias + o : w->no_bias, products + k * written + o, p->tiles + p->strips[last],
             p->strips[last + 1] - p->strips[last], p->runs, g.outputs - o, 0);
    write_patches(&g, products, written, to, t, count, adds);
  }
}

/* Gradients of the weights.  They are sums over patches and images: outputs are put where images were, so that a vector
 * has sums of as many outputs, and none is left to be summed up. */

/* Adds the products of some patches to sums [INPUTS][BROAD]: read [patches][step], gradient [patches][images][BROAD]. */
#define POINT_SUMS(INPUTS)                                                                                           \
  static void point_sums##INPUTS(const vec *restrict read, ptrdiff_t step, const vec *restrict gradient,             \
                                 ptrdiff_t patches, vec *restrict sums) {                                            \
    vec sum[INPUTS][BROAD];                                                                                          \
    UNROLL for (int i = 0; i < INPUTS; i++) UNROLL for (int j = 0; j < BROAD; j++) sum[i][j] = (vec){0};             \
    for (; patches; patches--, read += step)                                                                         \
      for (int k = 0; k < V; k++, gradient += BROAD) {                                                               \
        const REAL *image = (const REAL *)read + k;                                                                  \
        vec number[BROAD];                                                                                           \
        UNROLL for (int j = 0; j < BROAD; j++) number[j] = gradient[j];                                              \
        UNROLL for (int i = 0; i < INPUTS; i++) {                                                                    \
          const vec factor = all(image[i * V]);                                                                      \
          UNROLL for (int j = 0; j < BROAD; j++) sum[i][j] += factor * number[j];                                    \
        }                                                                                                            \
      }                                                                                                              \
    UNROLL for (int i = 0; i < INPUTS; i++) UNROLL for (int j = 0; j < BROAD; j++) sums[i * BROAD + j] += sum[i][j]; \
  }
SUMMED_INPUTS(POINT_SUMS)

typedef void (*point_sums_function)(const vec *, ptrdiff_t, const vec *, ptrdiff_t, vec *);

static point_sums_function point_sums_of(ptrdiff_t inputs) {
#define CHOOSE_INPUTS(INPUTS)                                                                                        \
  case INPUTS: return point_sums##INPUTS;
  switch (inputs) { SUMMED_INPUTS(CHOOSE_INPUTS) }
  return 0;
}

/* The most inputs of which point sums are there, not above the given number; 0 for none. */
int64_t point_inputs(int64_t most) {
  for (; most > 0; most--)
    if (point_sums_of(most)) return most;
  return 0;
}

/* Puts V channels of V images as V images of V channels; those behind `there` are zeros. */
INLINE void transpose(const vec *from, ptrdiff_t there, vec *to) {
  vec now[V], next[V];
  if (there >= V) {
    UNROLL for (int i = 0; i < V; i++) now[i] = from[i];
  } else {
    for (int i = 0; i < V; i++) to[i] = i < there ? from[i] : (vec){0};
    UNROLL for (int i = 0; i < V; i++) now[i] = to[i];
  }
  UNROLL for (int left = V; left > 1; left /= 2) {
    UNROLL for (int i = 0; i < V / 2; i++) {
      next[2 * i] = SHUFFLE(now[i], now[i + V / 2], LOWER);
      next[2 * i + 1] = SHUFFLE(now[i], now[i + V / 2], UPPER);
    }
    UNROLL for (int i = 0; i < V; i++) now[i] = next[i];
  }
  UNROLL for (int i = 0; i < V; i++) to[i] = now[i];
}

/* A gradient A' of some patches: to [points][tiles of outputs][patches][images][BROAD]. */
static void read_gradients(const struct patches *g, const vec *gradient, ptrdiff_t first, ptrdiff_t count, vec *to,
                           ptrdiff_t tile, ptrdiff_t step) {
  for (ptrdiff_t t = 0; t < count; t++) {
    const ptrdiff_t y = (first + t) / g->across * 2, x = (first + t) % g->across * 2;
    for (ptrdiff_t o = 0; o < CEIL_DIV(g->outputs, V * BROAD) * BROAD; o++) {
      vec pixel[4][V];
      for (ptrdiff_t i = 0; i < 4; i++) {
        const ptrdiff_t h = y + i / 2, w = x + i % 2;
        const int inside = h < g->rows && w < g->columns;
        transpose(gradient + (h * g->columns + w) * g->outputs + o * V, inside ? g->outputs - o * V : 0, pixel[i]);
      }
      vec *own = to + o / BROAD * tile + t * V * BROAD + o % BROAD;
      for (int k = 0; k < V; k++, own += BROAD)
        UNROLL for (int i = 0; i < 4; i++) {
          vec row[2];
          UNROLL for (int j = 0; j < 2; j++) {
            const vec a = pixel[j][k], b = pixel[2 + j][k];
            row[j] = i == 0 ? a : i == 1 ? a + b : i == 2 ? a - b : b;
          }
          own[(4 * i) * step] = row[0];
          own[(4 * i + 1) * step] = row[0] + row[1];
          own[(4 * i + 2) * step] = row[0] - row[1];
          own[(4 * i + 3) * step] = row[1];
        }
    }
  }
}

/* Adds some blocks' share of the gradients of the weights to w->sums. */
static void patch_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                            const struct workspace *w) {
  const struct patches g = patches_of(s, 0);
  const struct point_tiling tiling = point_tiling_of(s);
  const point_sums_function add = point_sums_of(s->point_inputs);
  const ptrdiff_t most = s->patches, read = point_step(most * g.channels), tile = most * V * BROAD;
  const ptrdiff_t step = point_step(tiling.outer * tile);
  vec *gradients = w->points + 16 * read + MOST_INPUTS; /* a tile of inputs reaches behind the last one */
  for (; blocks; blocks--, x += entered(s), gradient += convolved(s))
    for (ptrdiff_t t = 0; t < g.count; t += most) {
      const ptrdiff_t count = MIN(most, g.count - t);
      read_patches(&g, x, t, count, w->points, read);
      read_gradients(&g, gradient, t, count, gradients, tile, step);
      for (ptrdiff_t k = 0; k < 16; k++)
        for (ptrdiff_t o = 0; o < tiling.outer; o++)
          for (ptrdiff_t i = 0; i < tiling.rows; i += s->point_inputs)
            add(w->points + k * read + i, g.channels, gradients + k * step + o * tile, count,
                w->sums + k * tiling.step + (o * tiling.rows + i) * BROAD);
    }
}

/* Writes the gradients of the weights as torch has them: G' sums G. */
static void unpack_points(const struct shapes *s, const struct workspace *w, REAL *to) {
  const struct point_tiling tiling = point_tiling_of(s);
  for (ptrdiff_t o = 0; o < s->outputs; o += V)
    for (ptrdiff_t c = 0; c < s->channels; c++) {
      const vec *sum = w->sums + (o / V / BROAD * tiling.rows + c) * BROAD + o / V % BROAD;
      vec row[3][4], tap[9];
      UNROLL for (int i = 0; i < 4; i++) {
        const vec *at = sum + i * tiling.step;
        const vec b = at[4 * tiling.step], c2 = at[8 * tiling.step];
        row[0][i] = at[0] + (b + c2) / 2;
        row[1][i] = (b - c2) / 2;
        row[2][i] = (b + c2) / 2 + at[12 * tiling.step];
      }
      UNROLL for (int i = 0; i < 3; i++) {
        tap[3 * i] = row[i][0] + (row[i][1] + row[i][2]) / 2;
        tap[3 * i + 1] = (row[i][1] - row[i][2]) / 2;
        tap[3 * i + 2] = (row[i][1] + row[i][2]) / 2 + row[i][3];
      }
      for (ptrdiff_t j = 0; j < MIN(V, s->outputs - o); j++)
        UNROLL for (int i = 0; i < 9; i++) to[((o + j) * s->channels + c) * 9 + i] = ((const REAL *)tap)[i * V + j];
    }
}
