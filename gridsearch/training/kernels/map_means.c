/* Mean pooling of maps with the images innermost, and the mean of whole maps, which gives features.
 *
 * Compiled once for a machine; shapes come with a call (`op_args.constants`). */

#include "batch_inner.h"

struct shapes {
  int64_t channels, height, width, rows, columns, kernel[2], step[2], padding[2];
  int64_t whole; /* the mean of the whole map: features come out */
};

static ptrdiff_t entered(const struct shapes *s) { return s->height * s->width * s->channels; }

/* The pixels [h0, h1) x [w0, w1) of a window. */
struct window {
  ptrdiff_t h0, h1, w0, w1;
};

static struct window window_of(const struct shapes *s, ptrdiff_t pixel) {
  const ptrdiff_t top = pixel / s->columns * s->step[0] - s->padding[0];
  const ptrdiff_t left = pixel % s->columns * s->step[1] - s->padding[1];
  return (struct window){MAX(0, top), MIN(top + s->kernel[0], s->height), MAX(0, left),
                         MIN(left + s->kernel[1], s->width)};
}

void forward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  const ptrdiff_t pixels = s->rows * s->columns, channels = s->channels;
  const REAL count = (REAL)(s->kernel[0] * s->kernel[1]);
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    const vec *x = (const vec *)a->x[0] + b * entered(s);
    for (ptrdiff_t p = 0; p < pixels; p++) {
      const struct window w = window_of(s, p);
      for (ptrdiff_t c = 0; c < channels; c++) {
        vec sum = {0};
        for (ptrdiff_t h = w.h0; h < w.h1; h++)
          for (ptrdiff_t v = w.w0; v < w.w1; v++) sum += x[(h * s->width + v) * channels + c];
        sum /= all(count);
        if (s->whole) {
          REAL *y = (REAL *)a->y + b * V * channels + c;
          for (ptrdiff_t i = 0; i < MIN(V, a->images - b * V); i++) y[i * channels] = sum[i];
        } else {
          ((vec *)a->y)[(b * pixels + p) * channels + c] = sum;
        }
      }
    }
  }
}

void infer(const struct op_args *a) { forward(a); }

static vec gradient_of(const struct shapes *s, const struct op_args *a, ptrdiff_t block, ptrdiff_t pixel, ptrdiff_t c) {
  if (!s->whole) return ((const vec *)a->gy)[(block * s->rows * s->columns + pixel) * s->channels + c];
  vec found = {0};
  const REAL *gy = (const REAL *)a->gy + block * V * s->channels + c;
  for (ptrdiff_t i = 0; i < MIN(V, a->images - block * V); i++) found[i] = gy[i * s->channels];
  return found;
}

void backward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  if (!a->gx[0]) return;
  const REAL count = (REAL)(s->kernel[0] * s->kernel[1]);
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    vec *gx = (vec *)a->gx[0] + b * entered(s);
    if (!a->adds[0]) memset(gx, 0, sizeof(vec) * entered(s));
    for (ptrdiff_t p = 0; p < s->rows * s->columns; p++) {
      const struct window w = window_of(s, p);
      for (ptrdiff_t c = 0; c < s->channels; c++) {
        const vec share = gradient_of(s, a, b, p, c) / all(count);
        for (ptrdiff_t h = w.h0; h < w.h1; h++)
          for (ptrdiff_t v = w.w0; v < w.w1; v++) gx[(h * s->width + v) * s->channels + c] += share;
      }
    }
  }
}
