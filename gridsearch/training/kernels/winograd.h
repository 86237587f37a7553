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
 * Where bfloat16 is multiplied, it is points that are rounded, of d and g or of d and the gradient: all sums are in
 * single precision.  Two numbers of a point share a word (narrow.h), those of channels beside each other, or of images
 * for the gradients of the weights.  The error is 5 times that of rounding d and g.
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

enum { SOME = 8 }; /* channels at a time, whose half transformed patches stay in the first cache */
static const vec zeros[SOME]; /* what a patch reads of the padding */

/* How the numbers of a point lie: each by itself, or two in a word, of channels or of images beside each other. */
enum pairs { NONE, OF_CHANNELS, OF_IMAGES };

/* A row of B' d B, from B' d of some channels. */
INLINE void read_row(const vec half[READ][READ][SOME], int i, ptrdiff_t c, vec point[READ]) {
  vec d[READ];
  UNROLL for (int j = 0; j < READ; j++) d[j] = half[i][j][c];
  read_line(d, point);
}

/* B' d B of some patches: to [points][patches][channels], of words half as many. */
INLINE void read_patches_of(const struct patches *g, const vec *map, ptrdiff_t first, ptrdiff_t count, vec *to,
                            ptrdiff_t step, const enum pairs pairs) {
  for (ptrdiff_t t = first; t < first + count; t++)
    for (ptrdiff_t some = 0; some < g->channels; some += SOME) {
      const vec *own = map + t / g->each * g->height * g->width * g->channels + some;
      const ptrdiff_t y = t % g->each / g->across * SIDE - g->up, x = t % g->each % g->across * SIDE - g->left;
      const ptrdiff_t there = MIN(SOME, g->channels - some);
      const vec *pixel[READ + 1][READ];
      for (ptrdiff_t j = 0; j <= READ; j++)
        for (ptrdiff_t i = 0; i < READ; i++) {
          const int inside = y + i >= 0 && y + i < g->height && x + j >= 0 && x + j < g->width;
          pixel[j][i] = inside ? own + ((y + i) * g->width + x + j) * g->channels : zeros;
        }
      vec half[READ][READ][SOME];
      for (ptrdiff_t j = 0; j < READ; j++) /* few places in memory at a time */
        for (ptrdiff_t c = 0; c < there; c++) {
          vec d[READ], found[READ];
          UNROLL for (int i = 0; i < READ; i++) __builtin_prefetch(pixel[j + 1][i] + c);
          UNROLL for (int i = 0; i < READ; i++) d[i] = pixel[j][i][c];
          read_line(d, found);
          UNROLL for (int i = 0; i < READ; i++) half[i][j][c] = found[i];
        }
      vec *point_row = to;
      for (int i = 0; i < READ; i++, point_row += READ * step) {
        vec *each = point_row;
        for (ptrdiff_t c = 0; c < there; c += pairs ? 2 : 1, each++) {
          vec point[READ], beside[READ];
          read_row(half, i, c, point);
          if (pairs) read_row(half, i, MIN(c + 1, there - 1), beside);
          UNROLL for (int j = 0; j < READ; j++)
            each[j * step] = pairs == OF_CHANNELS ? words(point[j], beside[j])
                             : pairs == OF_IMAGES ? halves(point[j], beside[j])
                                                  : point[j];
        }
      }
      to += pairs ? CEIL_DIV(there, 2) : there;
    }
}

#define READ_PATCHES(NAME, PAIRS)                                                                                    \
  static void NAME(const struct patches *g, const vec *map, ptrdiff_t first, ptrdiff_t count, vec *to,               \
                   ptrdiff_t step) {                                                                                 \
    read_patches_of(g, map, first, count, to, step, PAIRS);                                                          \
  }
READ_PATCHES(read_patches, NONE)
READ_PATCHES(read_channel_pairs, OF_CHANNELS)
READ_PATCHES(read_image_pairs, OF_IMAGES)

/* A' m A of some patches m [points][patches][outputs], the pixels of the result. */
static void write_patches(const struct patches *g, const vec *m, ptrdiff_t step, const REAL *bias, vec *to,
                          ptrdiff_t first, ptrdiff_t count, int adds) {
  for (ptrdiff_t t = first; t < first + count; t++, m += g->outputs) {
    const ptrdiff_t y = t % g->each / g->across * SIDE, x = t % g->each % g->across * SIDE;
    const ptrdiff_t down = MIN(SIDE, g->rows - y), right = MIN(SIDE, g->columns - x);
    vec *own = to + ((t / g->each * g->rows + y) * g->columns + x) * g->outputs;
    for (ptrdiff_t some = 0; some < g->outputs; some += SOME) {
      const ptrdiff_t there = MIN(SOME, g->outputs - some);
      vec half[SIDE][READ][SOME];
      for (int i = 0; i < READ; i++)
        for (ptrdiff_t o = 0; o < there; o++) {
          vec at[READ], found[SIDE];
          UNROLL for (int j = 0; j < READ; j++) at[j] = m[(i * READ + j) * step + some + o];
          write_line(at, found);
          UNROLL for (int j = 0; j < SIDE; j++) half[j][i][o] = found[j];
        }
      for (ptrdiff_t j = 0; j < right; j++)
        for (ptrdiff_t o = 0; o < there; o++) {
          vec at[READ], pixel[SIDE];
          UNROLL for (int i = 0; i < READ; i++) at[i] = half[j][i][o];
          write_line(at, pixel);
          UNROLL for (int i = 0; i < SIDE; i++) {
            vec *number = own + (i * g->columns + j) * g->outputs + some + o;
            if (i < down) *number = (adds ? *number : all(bias[some + o])) + pixel[i];
          }
        }
    }
  }
}

/* G g G' of V weights. */
INLINE void transform_taps(const REAL *from, ptrdiff_t numbers, int turned, vec point[READ][READ]) {
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
    weights_line(row, point[i]);
  }
}

/* G g G' of a tile of weights: from [taps][numbers] to [points][numbers], and what is there behind them too.  For words
 * `second` has what comes into their upper halves. */
static void transform_weights(const REAL *from, const REAL *second, ptrdiff_t numbers, REAL *to, ptrdiff_t step,
                              int turned) {
  for (ptrdiff_t n = 0; n < numbers; n += V) {
    vec point[READ][READ], beside[READ][READ];
    transform_taps(from + n, numbers, turned, point);
    if (second) transform_taps(second + n, numbers, turned, beside);
    UNROLL for (int i = 0; i < READ; i++) UNROLL for (int j = 0; j < READ; j++) {
      const vec found = second ? words(point[i][j], beside[i][j]) : point[i][j];
      *(unaligned_vec *)(to + (i * READ + j) * step + n) = found;
    }
  }
}

/* `multiply` of some blocks, patch by patch; weights as `transform_weights` gives them. */
static void multiply_patches(const struct shapes *s, const struct product *p, const vec *map,
                             const struct workspace *w, vec *to, ptrdiff_t blocks, int turned, int adds) {
  const struct patches g = patches_of(s, turned, blocks);
  const tile_function tile = tile_of(p->channels, (int)p->narrows);
  const ptrdiff_t inputs = words_of(p, g.channels), weights = weights_step(p, inputs, g.outputs);
  const ptrdiff_t most = p->patches, read = point_step(most * inputs), written = point_step(most * g.outputs);
  vec *products = w->points + POINTS * read;
  for (ptrdiff_t t = 0; t < g.count; t += most) {
    const ptrdiff_t count = MIN(most, g.count - t), first = p->strips[count - 1], tiles = p->strips[count] - first;
    (p->narrows ? read_channel_pairs : read_patches)(&g, map, t, count, w->points, read);
    for (ptrdiff_t k = 0; k < POINTS; k++)
      for (ptrdiff_t o = 0; o < g.outputs; o += p->channels)
        tile(w->points + k * read, w->weights + k * weights + o * inputs, w->no_bias, products + k * written + o,
             p->tiles + first, tiles, p->runs, g.outputs - o, 0);
    write_patches(&g, products, written, w->bias, to, t, count, adds);
  }
}

/* Gradients of the weights.  They are sums over patches and images: outputs are put where images were, so that a vector
 * has sums of as many outputs, and none is left to be summed up. */

/* Adds the products of some patches to sums [INPUTS][BROAD]: read [patches][step], gradient [patches][images][BROAD];
 * of IMAGES words, where those of two images share one. */
#define POINT_SUMS(KIND, IMAGES, INPUTS)                                                                             \
  static void point_sums_##KIND##INPUTS(const REAL *restrict read, ptrdiff_t step, const vec *restrict gradient,     \
                                        ptrdiff_t patches, vec *restrict sums) {                                     \
    vec sum[INPUTS][BROAD];                                                                                          \
    UNROLL for (int i = 0; i < INPUTS; i++) UNROLL for (int j = 0; j < BROAD; j++) sum[i][j] = (vec){0};             \
    for (; patches; patches--, read += step)                                                                         \
      for (int k = 0; k < IMAGES; k++, gradient += BROAD) {                                                          \
        vec number[BROAD];                                                                                           \
        UNROLL for (int j = 0; j < BROAD; j++) {                                                                     \
          number[j] = gradient[j];                                                                                   \
          IN_REGISTER(number[j]);                                                                                    \
        }                                                                                                            \
        UNROLL for (int i = 0; i < INPUTS; i++) {                                                                    \
          const vec factor = all(read[i * IMAGES + k]);                                                              \
          UNROLL for (int j = 0; j < BROAD; j++) sum[i][j] = KIND(sum[i][j], factor, number[j]);                     \
        }                                                                                                            \
      }                                                                                                              \
    UNROLL for (int i = 0; i < INPUTS; i++) UNROLL for (int j = 0; j < BROAD; j++) sums[i * BROAD + j] += sum[i][j]; \
  }
#define WHOLE_SUMS(INPUTS) POINT_SUMS(whole, V, INPUTS)
SUMMED_INPUTS(WHOLE_SUMS)
#if NARROW
#define NARROW_SUMS(INPUTS) POINT_SUMS(narrow, V / 2, INPUTS)
SUMMED_INPUTS(NARROW_SUMS)
#endif

typedef void (*point_sums_function)(const REAL *, ptrdiff_t, const vec *, ptrdiff_t, vec *);

static point_sums_function point_sums_of(ptrdiff_t inputs, int narrows) {
#if NARROW
#define CHOOSE_INPUTS(INPUTS)                                                                                        \
  case INPUTS: return narrows ? point_sums_narrow##INPUTS : point_sums_whole##INPUTS;
#else
#define CHOOSE_INPUTS(INPUTS)                                                                                        \
  case INPUTS: return point_sums_whole##INPUTS;
#endif
  (void)narrows;
  switch (inputs) { SUMMED_INPUTS(CHOOSE_INPUTS) }
  return 0;
}

/* The most inputs of which point sums are there, not above the given number; 0 for none. */
int64_t point_inputs(int64_t most) {
  for (; most > 0; most--)
    if (point_sums_of(most, 0)) return most;
  return 0;
}

/* Puts V channels of V images as V images of V channels; those behind `there` are zeros. */
INLINE void transpose(const vec *from, ptrdiff_t there, vec *to) {
  if (there >= V)
    UNROLL for (int i = 0; i < V; i++) to[i] = from[i];
  else
    for (int i = 0; i < V; i++) to[i] = i < there ? from[i] : (vec){0};
  exchange(to);
}

/* A gradient A' of an image. */
INLINE void transform_gradient(const vec pixel[SIDE][SIDE][V], int image, vec point[READ][READ]) {
  vec half[SIDE][READ];
  UNROLL for (int j = 0; j < SIDE; j++) {
    vec column[SIDE];
    UNROLL for (int i = 0; i < SIDE; i++) column[i] = pixel[i][j][image];
    gradient_line(column, half[j]);
  }
  UNROLL for (int i = 0; i < READ; i++) {
    vec row[SIDE];
    UNROLL for (int j = 0; j < SIDE; j++) row[j] = half[j][i];
    gradient_line(row, point[i]);
  }
}

/* A gradient A' of some patches: to [points][tiles of outputs][patches][images, or pairs of them][BROAD]. */
INLINE void read_gradients_of(const struct patches *g, const vec *gradient, ptrdiff_t first, ptrdiff_t count, vec *to,
                              ptrdiff_t tile, ptrdiff_t step, const int each) {
  for (ptrdiff_t t = first; t < first + count; t++, to += V / each * BROAD) {
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
      for (int k = 0; k < V; k += each, own += BROAD) {
        vec point[READ][READ], next[READ][READ];
        transform_gradient(pixel, k, point);
        if (each == 2) transform_gradient(pixel, k + 1, next);
        UNROLL for (int i = 0; i < READ; i++) UNROLL for (int j = 0; j < READ; j++)
          own[(i * READ + j) * step] = each == 2 ? words(point[i][j], next[i][j]) : point[i][j];
      }
    }
  }
}

#define READ_GRADIENTS(NAME, EACH)                                                                                   \
  static void NAME(const struct patches *g, const vec *gradient, ptrdiff_t first, ptrdiff_t count, vec *to,          \
                   ptrdiff_t tile, ptrdiff_t step) {                                                                 \
    read_gradients_of(g, gradient, first, count, to, tile, step, EACH);                                              \
  }
READ_GRADIENTS(read_gradients, 1)
READ_GRADIENTS(read_gradient_pairs, 2)

/* Adds some blocks' share of the gradients of the weights to w->sums. */
static void patch_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                            const struct workspace *w) {
  const struct patches g = patches_of(s, 0, blocks);
  const struct point_tiling tiling = point_tiling_of(s);
  const point_sums_function add = point_sums_of(s->point_inputs, (int)s->narrows);
  const ptrdiff_t images = V / (s->narrows ? 2 : 1), inputs = point_channels(s), most = s->patches;
  const ptrdiff_t read = point_step(most * inputs), tile = most * images * BROAD, step = point_step(tiling.outer * tile);
  vec *gradients = w->points + POINTS * read + MOST_INPUTS; /* a tile of inputs reaches behind the last one */
  for (ptrdiff_t t = 0; t < g.count; t += most) {
    const ptrdiff_t count = MIN(most, g.count - t);
    (s->narrows ? read_image_pairs : read_patches)(&g, x, t, count, w->points, read);
    (s->narrows ? read_gradient_pairs : read_gradients)(&g, gradient, t, count, gradients, tile, step);
    for (ptrdiff_t k = 0; k < POINTS; k++)
      for (ptrdiff_t o = 0; o < tiling.outer; o++)
        for (ptrdiff_t i = 0; i < tiling.rows; i += s->point_inputs)
          add((const REAL *)(w->points + k * read) + i * images, inputs * V, gradients + k * step + o * tile, count,
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

