/* An activation in another layout, forwards and backwards.
 *
 * Compiled for one shape; the constants come from the compiler's command line: DOUBLE, FROM and TO (0 features, 1 channels
 * last, 2 batch inner), C channels and PIXELS numbers of each.
 */

#include "op.h"
#include "vectors.h"

enum { NUMBERS = C * PIXELS };

INLINE ptrdiff_t place(const int layout, ptrdiff_t n, ptrdiff_t c, ptrdiff_t p) {
  if (layout == 1) return n * NUMBERS + p * C + c;
  if (layout == 2) return n / V * V * NUMBERS + (p * C + c) * V + n % V;
  return n * NUMBERS + c * PIXELS + p;
}

/* Places of no image are set to 0. */
INLINE void copy(const REAL *restrict from, REAL *restrict to, ptrdiff_t images, const int before, const int after,
                 int adds) {
  if (after == 2 && images % V && !adds) memset(to + images / V * V * NUMBERS, 0, sizeof(REAL) * V * NUMBERS);
  for (ptrdiff_t n = 0; n < images; n++)
    for (ptrdiff_t c = 0; c < C; c++)
      for (ptrdiff_t p = 0; p < PIXELS; p++) {
        REAL *at = to + place(after, n, c, p);
        const REAL value = from[place(before, n, c, p)];
        *at = adds ? *at + value : value;
      }
}

void forward(const struct op_args *args) { copy(args->x[0], args->y, args->images, FROM, TO, 0); }

void infer(const struct op_args *args) { forward(args); }

void backward(const struct op_args *args) {
  if (args->gx[0]) copy(args->gy, args->gx[0], args->images, TO, FROM, args->adds[0]);
}
