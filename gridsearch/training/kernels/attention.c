/* What attention is made of: softmax of rows, and products of two matrices that both are an image's own.
 *
 * A value is [blocks][numbers][V]: the numbers of an image are those of its place in vectors, so that a product of
 * matrices is one of vectors, whatever their shapes.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.
 */

#include "curves.h"

/* --- Softmax of rows ------------------------------------------------------------------------------------------------- */

struct softmax {
  int64_t rows, columns, logarithm;
};

void softmax_forward(const struct op_args *a) {
  const struct softmax *s = a->constants;
  const vec *x = a->x[0];
  vec *y = a->y;
  for (ptrdiff_t r = 0; r < CEIL_DIV(a->images, V) * s->rows; r++, x += s->columns, y += s->columns) {
    vec most = x[0], sum = {0};
    for (ptrdiff_t c = 1; c < s->columns; c++) most = where((mask)(x[c] > most), x[c], most);
    for (ptrdiff_t c = 0; c < s->columns; c++) {
      y[c] = exponential(x[c] - most);
      sum += y[c];
    }
    const vec share = all(1) / sum, log = s->logarithm ? logarithm(sum) : sum;
    for (ptrdiff_t c = 0; c < s->columns; c++) y[c] = s->logarithm ? x[c] - most - log : y[c] * share;
  }
}

void softmax_infer(const struct op_args *a) { softmax_forward(a); }

void softmax_backward(const struct op_args *a) {
  const struct softmax *s = a->constants;
  const vec *y = a->y, *gy = a->gy;
  vec *gx = a->gx[0];
  if (!gx) return;
  for (ptrdiff_t r = 0; r < CEIL_DIV(a->images, V) * s->rows; r++) {
    vec sum = {0};
    for (ptrdiff_t c = 0; c < s->columns; c++) sum += s->logarithm ? gy[c] : gy[c] * y[c];
    for (ptrdiff_t c = 0; c < s->columns; c++) {
      const vec own = s->logarithm ? gy[c] - exponential(y[c]) * sum : y[c] * (gy[c] - sum);
      gx[c] = a->adds[0] ? gx[c] + own : own;
    }
    y += s->columns, gy += s->columns, gx += s->columns;
  }
}

/* --- Products of matrices -------------------------------------------------------------------------------------------- */

#if SUMS == 24
enum { ROWS = 6, COLUMNS = 4 };
#else
enum { ROWS = 4, COLUMNS = 3 };
#endif

struct matrix { /* steps in vectors */
  ptrdiff_t by_row, by_column;
};

/* to [rows][columns] = scale * x other, or added to what is there. */
INLINE void tile(vec *to, struct matrix by, const vec *x, struct matrix x_by, const vec *other, struct matrix other_by,
                 ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, vec scale, int adds) {
  const vec *row[ROWS], *column[COLUMNS];
  vec sum[ROWS][COLUMNS];
  UNROLL for (int r = 0; r < ROWS; r++) row[r] = x + MIN(r, rows - 1) * x_by.by_row;
  UNROLL for (int c = 0; c < COLUMNS; c++) column[c] = other + MIN(c, columns - 1) * other_by.by_column;
  UNROLL for (int r = 0; r < ROWS; r++)
    UNROLL for (int c = 0; c < COLUMNS; c++) sum[r][c] = (vec){0};
  for (ptrdiff_t d = 0; d < depth; d++) {
    vec number[COLUMNS];
    UNROLL for (int c = 0; c < COLUMNS; c++) {
      number[c] = column[c][d * other_by.by_row];
      IN_REGISTER(number[c]);
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
      vec factor = row[r][d * x_by.by_column];
      IN_REGISTER(factor);
      UNROLL for (int c = 0; c < COLUMNS; c++) sum[r][c] += factor * number[c];
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++)
    UNROLL for (int c = 0; c < COLUMNS; c++)
      if (r < rows && c < columns) {
        vec *own = to + r * by.by_row + c * by.by_column;
        *own = adds ? *own + scale * sum[r][c] : scale * sum[r][c];
      }
}

static void multiply(vec *to, struct matrix by, const vec *x, struct matrix x_by, const vec *other, struct matrix other_by,
                     ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, REAL scale, int adds) {
  for (ptrdiff_t r = 0; r < rows; r += ROWS)
    for (ptrdiff_t c = 0; c < columns; c += COLUMNS)
      tile(to + r * by.by_row + c * by.by_column, by, x + r * x_by.by_row, x_by, other + c * other_by.by_column, other_by,
           rows - r, columns - c, depth, all(scale), adds);
}

static struct matrix turned(struct matrix m) { return (struct matrix){m.by_column, m.by_row}; }

/* Products of so many pairs of matrices: [rows][depth] at places of one input times [depth][columns] of the other.  The
 * result is [rows][count][columns]. */
struct product {
  int64_t count, rows, columns, depth, sizes[2]; /* numbers of each input */
  int64_t whole[2];                              /* each number of an input is in one matrix */
  int64_t steps[2][2];                           /* from row to row and from column to column of each */
  double scale;
  const int64_t *places; /* [2][count], in vectors */
};

static struct matrix steps_of(const struct product *s, int input) {
  return (struct matrix){s->steps[input][0], s->steps[input][1]};
}

void product_forward(const struct op_args *a) {
  const struct product *s = a->constants;
  const struct matrix by = {s->count * s->columns, 1};
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    const vec *x = (const vec *)a->x[0] + b * s->sizes[0], *other = (const vec *)a->x[1] + b * s->sizes[1];
    vec *y = (vec *)a->y + b * s->rows * s->count * s->columns;
    for (ptrdiff_t n = 0; n < s->count; n++)
      multiply(y + n * s->columns, by, x + s->places[n], steps_of(s, 0), other + s->places[s->count + n], steps_of(s, 1),
               s->rows, s->columns, s->depth, (REAL)s->scale, 0);
  }
}

void product_infer(const struct op_args *a) { product_forward(a); }

/* Each input's gradient as a whole, the last one's first: both may be parts of one value. */
void product_backward(const struct op_args *a) {
  const struct product *s = a->constants;
  const struct matrix by = {s->count * s->columns, 1};
  for (int i = 1; i >= 0; i--) {
    if (!a->gx[i]) continue;
    const int adds = a->adds[i] || !s->whole[i];
    for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
      const vec *gy = (const vec *)a->gy + b * s->rows * s->count * s->columns;
      const vec *other = (const vec *)a->x[1 - i] + b * s->sizes[1 - i];
      vec *gx = (vec *)a->gx[i] + b * s->sizes[i];
      if (!a->adds[i] && adds) memset(gx, 0, sizeof(vec) * s->sizes[i]);
      for (ptrdiff_t n = 0; n < s->count; n++) {
        const vec *own = gy + n * s->columns, *factor = other + s->places[(1 - i) * s->count + n];
        vec *to = gx + s->places[i * s->count + n];
        if (i)
          multiply(to, steps_of(s, 1), factor, turned(steps_of(s, 0)), own, by, s->depth, s->columns, s->rows,
                   (REAL)s->scale, adds);
        else
          multiply(to, steps_of(s, 0), own, by, factor, turned(steps_of(s, 1)), s->rows, s->depth, s->columns,
                   (REAL)s->scale, adds);
      }
    }
  }
}
