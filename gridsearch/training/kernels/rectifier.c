/* ReLU of features, or leaky ReLU, where no other operation takes it along.
 *
 * Compiled for its shape; the constants come from the compiler's command line: DOUBLE, FEATURES of an image, SLOPE of what
 * is below zero.
 */

#include "op.h"
#include "vectors.h"

void forward(const struct op_args *args) {
  const REAL *restrict x = args->x[0];
  REAL *restrict y = args->y;
  for (ptrdiff_t i = 0; i < args->images * FEATURES; i++) y[i] = x[i] <= 0 ? (REAL)SLOPE * x[i] : x[i];
}

void infer(const struct op_args *args) { forward(args); }

void backward(const struct op_args *args) {
  const REAL *restrict x = args->x[0], *restrict gy = args->gy;
  REAL *restrict gx = args->gx[0];
  const int adds = args->adds[0];
  if (gx)
    for (ptrdiff_t i = 0; i < args->images * FEATURES; i++) {
      const REAL gradient = x[i] <= 0 ? (REAL)SLOPE * gy[i] : gy[i];
      gx[i] = adds ? gx[i] + gradient : gradient;
    }
}
