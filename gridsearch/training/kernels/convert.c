/* An activation in another layout, forwards and backwards.
 *
 * Compiled for one shape; the constants come from the compiler's command line: DOUBLE, FROM and TO (0 features, 1 channels
 * last, 2 batch inner), C channels and PIXELS numbers of each.
 */

#include "batch_inner.h"

enum { NUMBERS = C * PIXELS };

/* V rows of V numbers with rows and columns exchanged: each pass moves the lowest bit of a number's place to the top. */
INLINE void transpose(vec *rows) {
  vec other[V];
  UNROLL for (int left = V; left > 1; left /= 4) {
    UNROLL for (int i = 0; i < V / 2; i++) {
      other[i] = SHUFFLE(rows[2 * i], rows[2 * i + 1], EVEN);
      other[i + V / 2] = SHUFFLE(rows[2 * i], rows[2 * i + 1], ODD);
    }
    if (left == 2) {
      UNROLL for (int i = 0; i < V; i++) rows[i] = other[i];
      break;
    }
    UNROLL for (int i = 0; i < V / 2; i++) {
      rows[i] = SHUFFLE(other[2 * i], other[2 * i + 1], EVEN);
      rows[i + V / 2] = SHUFFLE(other[2 * i], other[2 * i + 1], ODD);
    }
  }
}

/* Where a pixel's numbers are: of an image in rows, and of a block. */
INLINE ptrdiff_t in_row(const int layout, ptrdiff_t c, ptrdiff_t p) {
  return layout == 1 ? p * C + c : c * PIXELS + p;
}

INLINE void put(REAL *to, REAL value, int adds) { *to = adds ? *to + value : value; }

/* Between images in rows (`layout` says how) and a block of them, whose places of no image are set to 0.  Numbers that
 * lie beside each other in a row are `step` vectors apart in the block. */
INLINE void stretch(REAL *restrict row, REAL *restrict block, ptrdiff_t images, ptrdiff_t count, const ptrdiff_t step,
                    const int to_block, int adds) {
  for (ptrdiff_t i = 0; i < count; i += V) {
    if (i + V > count) {
      if (count < V || adds) { /* what is left, one by one */
        for (; i < count; i++)
          for (ptrdiff_t n = 0; n < V; n++)
            if (to_block)
              put(block + i * step * V + n, n < images ? row[n * NUMBERS + i] : 0, adds);
            else if (n < images)
              put(row + n * NUMBERS + i, block[i * step * V + n], adds);
        return;
      }
      i = count - V; /* some of them twice */
    }
    vec tile[V];
    UNROLL for (int n = 0; n < V; n++)
      if (to_block)
        tile[n] = (vec){0};
      else
        tile[n] = *(const unaligned_vec *)(block + (i + n) * step * V);
    if (to_block)
      for (ptrdiff_t n = 0; n < images; n++) tile[n] = *(const unaligned_vec *)(row + n * NUMBERS + i);
    transpose(tile);
    UNROLL for (int n = 0; n < V; n++) {
      if (!to_block && n >= images) continue;
      unaligned_vec *to = (unaligned_vec *)(to_block ? block + (i + n) * step * V : row + n * NUMBERS + i);
      if (adds) tile[n] += *to;
      *to = tile[n];
    }
  }
}

INLINE void blocks(REAL *rows, REAL *inner, ptrdiff_t images, const int layout, const int to_block, int adds) {
  for (ptrdiff_t b = 0; b < images; b += V, rows += V * NUMBERS, inner += V * NUMBERS) {
    const ptrdiff_t here = MIN(V, images - b);
    if (layout == 1)
      stretch(rows, inner, here, NUMBERS, 1, to_block, adds);
    else
      for (ptrdiff_t c = 0; c < C; c++) stretch(rows + c * PIXELS, inner + c * V, here, PIXELS, C, to_block, adds);
  }
}

INLINE void copy(const REAL *from, REAL *to, ptrdiff_t images, const int before, const int after, int adds) {
  if (after == 2)
    blocks((REAL *)from, to, images, before, 1, adds);
  else if (before == 2)
    blocks(to, (REAL *)from, images, after, 0, adds);
  else
    for (ptrdiff_t n = 0; n < images; n++)
      for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t p = 0; p < PIXELS; p++)
          put(to + n * NUMBERS + in_row(after, c, p), from[n * NUMBERS + in_row(before, c, p)], adds);
}

void forward(const struct op_args *args) { copy(args->x[0], args->y, args->images, FROM, TO, 0); }

void infer(const struct op_args *args) { forward(args); }

void backward(const struct op_args *args) {
  if (args->gx[0]) copy(args->gy, args->gx[0], args->images, TO, FROM, args->adds[0]);
}
