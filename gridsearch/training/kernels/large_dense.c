/* A dense layer too large for `dense_layers.c`, with ReLU after it or not, by the BLAS that torch has: of one lane.
 *
 * Compiled for its shape; the constants come from the compiler's command line: DOUBLE, INPUTS, OUTPUTS, RELU.
 */

#include "op.h"
#include "vectors.h"

/* Fortran's own: matrices are column by column, so that ours are transposed to it. */
typedef void (*gemm_function)(const char *, const char *, const int *, const int *, const int *, const REAL *,
                              const REAL *, const int *, const REAL *, const int *, const REAL *, REAL *,
                              const int *);
static gemm_function gemm;

void op_use(gemm_function found) { gemm = found; }

/* c [n][m] = a [n][k] b [k][m] (+ c), row by row as C has them; with at, a is [k][n], and with bt, b is [m][k]. */
static void product(REAL *c, const REAL *a, int at, const REAL *b, int bt, int n, int k, int m, int adds) {
  const REAL one = 1, sum = adds;
  const int a_step = at ? n : k, b_step = bt ? k : m;
  gemm(bt ? "T" : "N", at ? "T" : "N", &m, &n, &k, &one, b, &b_step, a, &a_step, &sum, c, &m);
}

void op_forward(const struct op_args *args) {
  const ptrdiff_t images = args->images;
  const REAL *bias = args->params[1];
  REAL *y = args->y;
  if (bias)
    for (ptrdiff_t n = 0; n < images; n++) memcpy(y + n * OUTPUTS, bias, sizeof(REAL) * OUTPUTS);
  product(y, args->x[0], 0, args->params[0], 1, images, INPUTS, OUTPUTS, bias != 0);
  if (RELU)
    for (ptrdiff_t i = 0; i < images * OUTPUTS; i++) y[i] = y[i] <= 0 ? 0 : y[i];
}

void op_infer(const struct op_args *args) { op_forward(args); }

void op_backward(const struct op_args *args) {
  const ptrdiff_t images = args->images;
  const REAL *y = args->y;
  REAL *gy = (REAL *)args->gy, *gb = args->grads[1];
  if (RELU)
    for (ptrdiff_t i = 0; i < images * OUTPUTS; i++) gy[i] = y[i] <= 0 ? 0 : gy[i];
  product(args->grads[0], gy, 1, args->x[0], 0, OUTPUTS, images, INPUTS, 0);
  if (gb) {
    for (ptrdiff_t g = 0; g < OUTPUTS; g++) gb[g] = 0;
    for (ptrdiff_t n = 0; n < images; n++)
      for (ptrdiff_t g = 0; g < OUTPUTS; g++) gb[g] += gy[n * OUTPUTS + g];
  }
  if (args->gx[0]) product(args->gx[0], gy, 0, args->params[0], 0, images, OUTPUTS, INPUTS, args->adds[0]);
}
