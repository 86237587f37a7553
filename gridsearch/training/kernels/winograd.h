/* Convolutions of 3x3 taps by minimal filtering, F(4x4, 3x3): 36 products in place of 144 for 4x4 pixels of the result.
 *
 * S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin and S. Gray, "Fast algorithms for convolutional
 * neural networks", 2016, section 4.  A patch is 4x4 pixels of the map that is written, and the 6x6 of the other one
 * that they read.  With d the latter and g the taps of a channel,
 *
 *   result = A' [(G g G') * (B' d B)] A           gradient of g = G' [(A gradient A') * (B' d B)] G
 *
 * where * takes two numbers at the same one of 36 points, and ' transposes.  So at each point there is a product of
 * matrices, channels by patches, and all else are sums.  The polynomials behind it are taken at 0, 3/4, -3/4, 3/2, -3/2
 * and infinity: A and B are exact, and the error is half of that with the usual 0, 1, -1, 2, -2.
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

/* One dimension of each transform: t = B' d */
INLINE void read_line(const vec *d, vec *t) {
  const vec even = d[4] - d[2] * all(2.25f), odd = d[3] * all(0.75f) - d[1] * all(1.6875f);
  const vec even2 = d[4] - d[2] * all(0.5625f), odd2 = d[3] * all(1.5f) - d[1] * all(0.84375f);
  t[0] = d[0] * all(1.265625f) + (d[4] - d[2] * all(2.8125f));
  t[1] = even + odd;
  t[2] = even - odd;
  t[3] = even2 + odd2;
  t[4] = even2 - odd2;
  t[5] = d[1] * all(1.265625f) + (d[5] - d[3] * all(2.8125f));
}

/* y = A' m */
INLINE void write_line(const vec *m, vec *y) {
  const vec sum = m[1] + m[2], difference = m[1] - m[2];
  const vec sum2 = m[3] + m[4], difference2 = m[3] - m[4];
  y[0] = m[0] + (sum + sum2);
  y[1] = difference * all(0.75f) + difference2 * all(1.5f);
  y[2] = sum * all(0.5625f) + sum2 * all(2.25f);
  y[3] = difference * all(0.421875f) + (difference2 * all(3.375f) + m[5]);
}

/* t = A y */
INLINE void gradient_line(const vec *y, vec *t) {
  t[0] = y[0];
  const vec even = y[0] + y[2] * all(0.5625f), odd = y[1] * all(0.75f) + y[3] * all(0.421875f);
  const vec even2 = y[0] + y[2] * all(2.25f), odd2 = y[1] * all(1.5f) + y[3] * all(3.375f);
  t[1] = even + odd;
  t[2] = even - odd;
  t[3] = even2 + odd2;
  t[4] = even2 - odd2;
  t[5] = y[3];
}

/* t = G g */
INLINE void weights_line(const vec *g, vec *t) {
  const vec last = g[2] * all((REAL)(8 / 27.)), even = g[0] * all((REAL)(-128 / 243.)) - last;
  const vec even2 = g[0] * all((REAL)(32 / 243.)) + last, odd = g[1] * all((REAL)(16 / 81.));
  t[0] = g[0] * all((REAL)(64 / 81.));
  t[1] = even - 2 * odd;
  t[2] = even + 2 * odd;
  t[3] = even2 + odd;
  t[4] = even2 - odd;
  t[5] = g[2];
}

/* g = G' t */
INLINE void taps_line(const vec *t, vec *g) {
  const vec sum = t[1] + t[2], difference = t[1] - t[2];
  const vec sum2 = t[3] + t[4], difference2 = t[3] - t[4];
  g[0] = t[0] * all((REAL)(64 / 81.)) + (sum2 * all((REAL)(32 / 243.)) - sum * all((REAL)(128 / 243.)));
  g[1] = (difference2 - 2 * difference) * all((REAL)(16 / 81.));
  g[2] = (sum2 - sum) * all((REAL)(8 / 27.)) + t[5];
}

enum { SOME = 32 }; /* channels at a time */
static const vec zeros[SOME]; /* what a patch reads of the padding */

/* B' d B of some patches: to [points][patches][channels]. */
static void read_patches(const struct patches *g, const vec *map, ptrdiff_t first, ptrdiff_t count, vec *to,
                         ptrdiff_t step) {
  for (ptrdiff_t t = first; t < first + count; t++)
    for (ptrdiff_t some = 0; some < g->channels; some += SOME) {
      const vec *own = map + t / g->each * g->height * g->width * g->channels + some;
      const ptrdiff_t y = t % g->each / g->across * SIDE - g->up, x = t % g->each % g->across * SIDE - g->left;
      const vec *pixel[READ][READ];
      for (ptrdiff_t i = 0; i < READ; i++)
        for (ptrdiff_t j = 0; j < READ; j++) {
          const int inside = y + i >= 0 && y + i < g->height && x + j >= 0 && x + j < g->width;
          pixel[i][j] = inside ? own + ((y + i) * g->width + x + j) * g->channels : zeros;
        }
      const ptrdiff_t there = MIN(SOME, g->channels - some);
      for (ptrdiff_t c = 0; c < there; c++, to++) {
        vec half[READ][READ];
        UNROLL for (int j = 0; j < READ; j++) {
          vec d[READ];
          UNROLL for (int i = 0; i < READ; i++) d[i] = pixel[i][j][c];
          read_line(d, half[j]);
        }
        UNROLL for (int i = 0; i < READ; i++) {
          vec d[READ], point[READ];
          UNROLL for (int j = 0; j < READ; j++) d[j] = half[j][i];
          read_line(d, point);
          UNROLL for (int j = 0; j < READ; j++) to[(i * READ + j) * step] = point[j];
        }
      }
    }
}

/* A' m A of some patches m [points][patches][outputs], the pixels of the result. */
static void write_patches(const struct patches *g, const vec *m, ptrdiff_t step, const REAL *bias, vec *to,
                          ptrdiff_t first, ptrdiff_t count, int adds) {
  for (ptrdiff_t t = first; t < first + count; t++, m += g->outputs) {
    const ptrdiff_t y = t % g->each / g->across * SIDE, x = t % g->each % g->across * SIDE;
    const ptrdiff_t down = MIN(SIDE, g->rows - y), right = MIN(SIDE, g->columns - x);
    vec *own = to + ((t / g->each * g->rows + y) * g->columns + x) * g->outputs;
    for (ptrdiff_t o = 0; o < g->outputs; o++) {
      vec half[READ][SIDE];
      UNROLL for (int i = 0; i < READ; i++) {
        vec at[READ];
        UNROLL for (int j = 0; j < READ; j++) at[j] = m[(i * READ + j) * step + o];
        write_line(at, half[i]);
      }
      UNROLL for (int j = 0; j < SIDE; j++) {
        vec at[READ], pixel[SIDE];
        UNROLL for (int i = 0; i < READ; i++) at[i] = half[i][j];
        write_line(at, pixel);
        if (j >= right) continue;
        UNROLL for (int i = 0; i < SIDE; i++) {
          vec *number = own + (i * g->columns + j) * g->outputs + o;
          if (i < down) *number = (adds ? *number : all(bias[o])) + pixel[i];
        }
      }
    }
  }
}

/* G g G' of a tile of weights: from [taps][numbers] to [points][numbers], and what is there behind them too. */
static void transform_weights(const REAL *from, ptrdiff_t numbers, REAL *to, ptrdiff_t step, int turned) {
  for (ptrdiff_t n = 0; n < numbers; n += V, from += V, to += V) {
    vec half[3][READ];
    UNROLL for (int c = 0; c < 3; c++) {
      vec tap[3];
      UNROLL for (int r = 0; r < 3; r++) {
        const int row = turned ? 2 - r : r; /* the columns are turned already */
        tap[r] = *(const unaligned_vec *)(from + (3 * row + c) * numbers);
      }
      weights_line(tap, half[c]);
    }
    UNROLL for (int i = 0; i < READ; i++) {
      const vec row[3] = {half[0][i], half[1][i], half[2][i]};
      vec point[READ];
      weights_line(row, point);
      UNROLL for (int j = 0; j < READ; j++) *(unaligned_vec *)(to + (i * READ + j) * step) = point[j];
    }
  }
}

/* `multiply` of some blocks, patch by patch; weights as `transform_weights` gives them. */
static void multiply_patches(const struct shapes *s, const struct product *p, const vec *map,
                             const struct workspace *w, vec *to, ptrdiff_t blocks, int turned, int adds) {
  const struct patches g = patches_of(s, turned, blocks);
  const tile_function tile = tile_of(p->channels, 0);
  const ptrdiff_t most = p->patches, read = point_step(most * g.channels), written = point_step(most * g.outputs);
  const ptrdiff_t weights = weights_step(p, g.channels, g.outputs);
  vec *products = w->points + POINTS * read;
  for (ptrdiff_t t = 0; t < g.count; t += most) {
    const ptrdiff_t count = MIN(most, g.count - t), first = p->strips[count - 1], tiles = p->strips[count] - first;
    read_patches(&g, map, t, count, w->points, read);
    for (ptrdiff_t k = 0; k < POINTS; k++)
      for (ptrdiff_t o = 0; o < g.outputs; o += p->channels)
        tile(w->points + k * read, w->weights + k * weights + o * g.channels, w->no_bias, products + k * written + o,
             p->tiles + first, tiles, p->runs, g.outputs - o, 0);
    write_patches(&g, products, written, w->bias, to, t, count, adds);
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
  for (ptrdiff_t t = first; t < first + count; t++, to += V * BROAD) {
    const vec *maps = gradient + t / g->each * g->rows * g->columns * g->outputs;
    const ptrdiff_t y = t % g->each / g->across * SIDE, x = t % g->each % g->across * SIDE;
    for (ptrdiff_t o = 0; o < CEIL_DIV(g->outputs, V * BROAD) * BROAD; o++) {
      vec pixel[SIDE][SIDE][V];
      for (ptrdiff_t i = 0; i < SIDE; i++)
        for (ptrdiff_t j = 0; j < SIDE; j++) {
          const int inside = y + i < g->rows && x + j < g->columns;
          transpose(maps + ((y + i) * g->columns + x + j) * g->outputs + o * V, inside ? g->outputs - o * V : 0,
                    pixel[i][j]);
        }
      vec *own = to + o / BROAD * tile + o % BROAD;
      for (int k = 0; k < V; k++, own += BROAD) {
        vec half[SIDE][READ];
        UNROLL for (int j = 0; j < SIDE; j++) {
          vec column[SIDE];
          UNROLL for (int i = 0; i < SIDE; i++) column[i] = pixel[i][j][k];
          gradient_line(column, half[j]);
        }
        UNROLL for (int i = 0; i < READ; i++) {
          vec row[SIDE], point[READ];
          UNROLL for (int j = 0; j < SIDE; j++) row[j] = half[j][i];
          gradient_line(row, point);
          UNROLL for (int j = 0; j < READ; j++) own[(i * READ + j) * step] = point[j];
        }
      }
    }
  }
}

/* Adds some blocks' share of the gradients of the weights to w->sums. */
static void patch_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                            const struct workspace *w) {
  const struct patches g = patches_of(s, 0, blocks);
  const struct point_tiling tiling = point_tiling_of(s);
  const point_sums_function add = point_sums_of(s->point_inputs);
  const ptrdiff_t most = s->patches, read = point_step(most * g.channels), tile = most * V * BROAD;
  const ptrdiff_t step = point_step(tiling.outer * tile);
  vec *gradients = w->points + POINTS * read + MOST_INPUTS; /* a tile of inputs reaches behind the last one */
  for (ptrdiff_t t = 0; t < g.count; t += most) {
    const ptrdiff_t count = MIN(most, g.count - t);
    read_patches(&g, x, t, count, w->points, read);
    read_gradients(&g, gradient, t, count, gradients, tile, step);
    for (ptrdiff_t k = 0; k < POINTS; k++)
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
      vec half[READ][3], tap[3][3];
      UNROLL for (int i = 0; i < READ; i++) {
        vec point[READ];
        UNROLL for (int j = 0; j < READ; j++) point[j] = sum[(i * READ + j) * tiling.step];
        taps_line(point, half[i]);
      }
      UNROLL for (int j = 0; j < 3; j++) {
        vec column[READ], found[3];
        UNROLL for (int i = 0; i < READ; i++) column[i] = half[i][j];
        taps_line(column, found);
        UNROLL for (int i = 0; i < 3; i++) tap[i][j] = found[i];
      }
      for (ptrdiff_t j = 0; j < MIN(V, s->outputs - o); j++)
        UNROLL for (int i = 0; i < 9; i++) to[((o + j) * s->channels + c) * 9 + i] = ((const REAL *)tap)[i * V + j];
    }
}

