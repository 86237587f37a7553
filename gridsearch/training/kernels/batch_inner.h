/* What the operations on maps of the layout "batch inner" share: [blocks][H][W][C][V].
 *
 * A vector has one number of V images.  So a weight is one number for a whole vector, whatever a layer's channels, taps
 * and steps are; nothing is left over but the places of no image in the last block. */

#pragma once

#include "op.h"
#include "vectors.h"

#if V == 16
#define COPIES(r) r, r, r, r, r, r, r, r, r, r, r, r, r, r, r, r
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif V == 8
#define COPIES(r) r, r, r, r, r, r, r, r
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#elif V == 4
#define COPIES(r) r, r, r, r
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#else
#define COPIES(r) r, r
#define EVEN 0, 2
#define ODD 1, 3
#define LOWER 0, 2
#define UPPER 1, 3
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif
/* The sums of neighbours: first those of a, then those of b. */
#define NEIGHBOURS(a, b) (SHUFFLE(a, b, EVEN) + SHUFFLE(a, b, ODD))

INLINE vec all(REAL r) { return (vec){COPIES(r)}; }
INLINE vec where(mask m, vec yes, vec no) { return (vec)(((mask)yes & m) | ((mask)no & ~m)); }

/* Exchanges rows and columns of V vectors. */
INLINE void exchange(vec *rows) {
  vec now[V], next[V];
  UNROLL for (int i = 0; i < V; i++) now[i] = rows[i];
  UNROLL for (int left = V; left > 1; left /= 2) {
    UNROLL for (int i = 0; i < V / 2; i++) {
      next[2 * i] = SHUFFLE(now[i], now[i + V / 2], LOWER);
      next[2 * i + 1] = SHUFFLE(now[i], now[i + V / 2], UPPER);
    }
    UNROLL for (int i = 0; i < V; i++) now[i] = next[i];
  }
  UNROLL for (int i = 0; i < V; i++) rows[i] = now[i];
}

INLINE double sum_of(vec v) {
  double sum = 0;
  for (int i = 0; i < V; i++) sum += v[i];
  return sum;
}

/* Which places of a block are those of images. */
INLINE mask present(ptrdiff_t images, ptrdiff_t block) {
  mask m;
  for (int i = 0; i < V; i++) m[i] = block * V + i < images ? -1 : 0;
  return m;
}
