/* Products of matrices in rows, over vectors of a row: of images in rows with weights.
 *
 * Where a row does not end with a whole vector, the last one overlaps the one before it.  Sums have a fixed order: the
 * same bytes each time. */

#pragma once

#include "vectors.h"

#if BYTES == 64
enum { ROWS = 5, COLUMNS = 4 }; /* sums at a time, in vectors */
#else
enum { ROWS = 4, COLUMNS = 2 };
#endif

enum { DEPTH = 128 }; /* of a product at a time: so many numbers stay in a core's own cache */

/* to [rows][count] = a m, some rows and vectors of columns at a time: a has the strides [2] of its rows and columns,
 * m is [depth][m_step], a row of `to` has `step` numbers.  With `adds` it goes on from what is there.  Where there is a
 * gate, like `to`, the result is 0 where the gate (ReLU's result) is not positive. */
INLINE void matmul_tile(const REAL *a, ptrdiff_t by_row, ptrdiff_t by_column, const REAL *m, ptrdiff_t m_step,
                       ptrdiff_t depth, REAL *to, int adds, const REAL *gate, ptrdiff_t step, ptrdiff_t rows,
                       const int vectors) {
  const REAL *row[ROWS];
  UNROLL for (int r = 0; r < ROWS; r++) row[r] = a + MIN(r, rows - 1) * by_row;
  vec sum[ROWS][COLUMNS];
  UNROLL for (int r = 0; r < ROWS; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r][v] = adds ? (vec) * (const unaligned_vec *)(to + MIN(r, rows - 1) * step + v * V) : (vec){0};
  for (ptrdiff_t d = 0; d < depth; d++) {
    vec number[COLUMNS];
    UNROLL for (int v = 0; v < vectors; v++) {
      number[v] = *(const unaligned_vec *)(m + d * m_step + v * V);
      IN_REGISTER(number[v]);
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
      const REAL factor = row[r][d * by_column];
      UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += factor * number[v];
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++)
    if (r < rows)
      UNROLL for (int v = 0; v < vectors; v++) {
        if (gate) {
          const vec before = *(const unaligned_vec *)(gate + r * step + v * V);
          sum[r][v] = (vec)((mask)sum[r][v] & ~(mask)(before <= 0));
        }
        *(unaligned_vec *)(to + r * step + v * V) = sum[r][v];
      }
}

/* See `matmul_tile`; `adds` wants a `count` of whole vectors, for some columns are computed twice else. */
static void matmul(const REAL *a, ptrdiff_t by_row, ptrdiff_t by_column, const REAL *m, ptrdiff_t m_step,
                  ptrdiff_t depth, REAL *to, ptrdiff_t step, int adds, const REAL *gate, ptrdiff_t rows,
                  ptrdiff_t count) {
  for (ptrdiff_t done = 0; done < count;) {
    ptrdiff_t vectors = MIN(COLUMNS, CEIL_DIV(count - done, V)), c = done;
    if (c + vectors * V > count) c = count - vectors * V; /* some columns twice */
    if (c < 0) c = done, vectors--;
    for (ptrdiff_t d = 0; d < depth; d += DEPTH) {
      const ptrdiff_t deep = MIN(DEPTH, depth - d);
      const REAL *shuts = d + deep == depth ? gate : 0, *lines = m + d * m_step + c;
      for (ptrdiff_t r = 0; r < rows; r += ROWS) {
        const REAL *from = a + r * by_row + d * by_column, *shut = shuts ? shuts + r * step + c : 0;
        REAL *into = to + r * step + c;
        const ptrdiff_t left = rows - r;
        const int goes_on = adds || d > 0;
        if (COLUMNS > 3 && vectors == 4)
          matmul_tile(from, by_row, by_column, lines, m_step, deep, into, goes_on, shut, step, left, MIN(4, COLUMNS));
        else if (COLUMNS > 2 && vectors == 3)
          matmul_tile(from, by_row, by_column, lines, m_step, deep, into, goes_on, shut, step, left, MIN(3, COLUMNS));
        else if (vectors == 2)
          matmul_tile(from, by_row, by_column, lines, m_step, deep, into, goes_on, shut, step, left, 2);
        else
          matmul_tile(from, by_row, by_column, lines, m_step, deep, into, goes_on, shut, step, left, 1);
      }
    }
    done = c + vectors * V;
  }
}
