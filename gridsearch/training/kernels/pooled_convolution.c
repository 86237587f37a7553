/* Max pooling of a convolution, with ReLU after it or not, as one operation: forwards and backwards.
 *
 * Compiled for one shape on the machine that runs it; the constants come from the compiler's command line:
 *
 *   DOUBLE        1 for double, 0 for float   C, OUTPUTS    channels of a lane in and out
 *   H, W          height and width of a map   KH, KW        height and width of the kernel
 *   PH, PW        zeros at each side          P             side of the pooling's windows, and their step
 *   RELU          1 with, 0 without
 *
 * A convolution for small images writes every value of its maps, pooling reads them and keeps one in P * P, and in the
 * backward pass the gradients are spread out again, mostly zeros that are multiplied all the same.  Here the values of
 * a window stay in registers until the largest is known, and only its position has a gradient in the backward pass: a
 * P * P-th of the products.
 *
 * Maps lie as [images][height][width][channels], groups side by side in the channels.  An image of one group is
 * copied into a small buffer, with its padding around it, so that any memory layout may come in and a row of a
 * kernel's window is one block of memory.  Loops over vectors read and write a little behind what they need; every
 * buffer has that much more at its end.  Sums run over a fixed order of images and windows: the same bytes each
 * time.
 */

#include "batch_inner.h"

#define STRIP_BYTES 24576

enum {
  ROW = (W + 2 * PW) * C, /* numbers in a row of a padded image */
  IMAGE = (H + 2 * PH) * ROW,
  TAPS = KH * KW * C,
  OH = H + 2 * PH - KH + 1,
  OW = W + 2 * PW - KW + 1,
  QH = OH / P,
  QW = OW / P,
  WINDOWS = QH * QW,

  /* forwards: the windows side by side whose sums fit the registers, for one vector of channels or more */
  MAX_VECTORS = MAX(1, MIN(3, SUMS / (P * P))),
  MAX_BESIDE = 6,

  /* gradients of the weights: an image is copied so that a kernel's window is one block of vectors, each of which
   * begins where a vector may (in a processor's cache, others cost twice as much).  From each column on, the first
   * numbers of all rows lie below each other.  Where several of these rows fill a vector there are as many copies,
   * each moved by a row more.  Strip by strip, which stay in the nearest cache. */
  LINE = KW * C > V / 2   ? CEIL_DIV(KW * C, V) * V /* numbers of a row */
         : KW * C > V / 4 ? V / 2
                          : CEIL_DIV(V, 4),
  COPIES = MAX(1, V / LINE),
  COLUMN = OW * LINE * COPIES * (int)sizeof(REAL), /* bytes of a row of pixels, in all copies */
  STRIP = MAX(1, MIN(QH, (STRIP_BYTES / COLUMN - KH + 1) / P)), /* rows of windows */
  HIGH = CEIL_DIV(STRIP * P + KH - 1, COPIES) * COPIES,         /* rows of pixels */
  NEEDED = CEIL_DIV(KH * LINE, V),
  PART = CEIL_DIV(NEEDED, CEIL_DIV(NEEDED, SUMS)), /* vectors of a window at a time */
  PATCH = PART * CEIL_DIV(NEEDED, PART) * V,       /* numbers of a window */
  ABREAST = MAX(1, MIN(6, SUMS / PART)),           /* channels at a time */

  /* gradients of the images: the receptive field of a pooling window, as rows of vectors */
  FIELD = KH + P - 1,
  FIELD_NEEDED = CEIL_DIV((KW + P - 1) * C, V),
  FIELD_PART = CEIL_DIV(FIELD_NEEDED, CEIL_DIV(FIELD_NEEDED, SUMS)),
  FIELD_LONG = FIELD_PART * CEIL_DIV(FIELD_NEEDED, FIELD_PART),
  FIELD_ROWS = FIELD_LONG > FIELD_PART                           ? 1
               : FIELD * FIELD_PART <= SUMS                      ? FIELD
               : FIELD % 2 == 0 && FIELD / 2 * FIELD_PART <= SUMS ? FIELD / 2
               : FIELD % 3 == 0 && FIELD / 3 * FIELD_PART <= SUMS ? FIELD / 3
                                                                  : 1,
  FIELD_ROW = FIELD_LONG * V,
  SHIFTED = (KH + 2 * (P - 1)) * FIELD_ROW, /* a channel's weights, moved to the right by 0 to P - 1 */
  SPREAD = P * SHIFTED,

  SLACK = PATCH + (FIELD_LONG + 4) * V, /* what vectors may touch behind a buffer's end */

  /* buffers, in whole vectors, so that each begins where a vector may */
  IMAGE_BUFFER = CEIL_DIV(IMAGE, V) * V + SLACK,
  COPY = OW * HIGH * LINE + CEIL_DIV(PATCH, V) * V, /* what the last window's vectors touch beyond it */
};

/* Copies a group of one image [C, H, W] with any strides into a padded buffer [H + 2 PH][W + 2 PW][C]. */
static void copy_image(REAL *restrict workspace, const REAL *restrict x, const ptrdiff_t *strides) {
  const ptrdiff_t by_channel = strides[1], by_row = strides[2], by_column = strides[3];
  for (ptrdiff_t h = 0; h < H; h++) {
    REAL *to = workspace + (h + PH) * ROW + PW * C;
    const REAL *from = x + h * by_row;
    if ((C == 1 || by_channel == 1) && by_column == C)
      memcpy(to, from, sizeof(REAL) * W * C);
    else if (by_channel == 1)
      for (ptrdiff_t w = 0; w < W; w++) memcpy(to + w * C, from + w * by_column, sizeof(REAL) * C);
    else
      for (ptrdiff_t w = 0; w < W; w++)
        for (ptrdiff_t c = 0; c < C; c++) to[w * C + c] = from[w * by_column + c * by_channel];
  }
}

/* Writes the first `count` numbers of a vector, and of the argmax indices beside it. */
INLINE void store_max(REAL *y, uint8_t *indices, vec values, mask argmax, ptrdiff_t count) {
  const index_vec bytes = __builtin_convertvector(argmax, index_vec);
  if (count >= V) {
    *(unaligned_vec *)y = values;
    if (indices) *(index_vec *)indices = bytes;
    return;
  }
  for (ptrdiff_t i = 0; i < count; i++) {
    y[i] = values[i];
    if (indices) indices[i] = bytes[i];
  }
}

/* The largest of each window's sums [P * P], and where it was.  As torch does, the first of equal values counts, and
 * NaN is the largest. */
INLINE vec largest(const vec *sum, mask *argmax) {
  vec most = sum[0];
  *argmax = (mask){0};
  UNROLL for (int p = 1; p < P * P; p++) {
    const mask more = (mask)(sum[p] > most) | (mask)(sum[p] != sum[p]);
    most = where(more, sum[p], most);
    *argmax = (*argmax & ~more) | (more & p);
  }
  return RELU ? (vec)((mask)most & ~(mask)(most <= 0)) : most;
}

/* Some windows side by side, for some vectors of channels: their sums in registers, then the largest of each. */
INLINE void windows(const REAL *x, const REAL *w, ptrdiff_t channels, const REAL *bias, REAL *y, uint8_t *indices,
                    ptrdiff_t step, ptrdiff_t count, const int vectors, const int beside) {
  vec sum[MAX_BESIDE][MAX_VECTORS][P * P]; /* of constant sizes, or they would not go into registers */
  UNROLL for (int n = 0; n < beside; n++)
    UNROLL for (int v = 0; v < vectors; v++)
      UNROLL for (int p = 0; p < P * P; p++) sum[n][v][p] = *(const unaligned_vec *)(bias + v * V);
  for (int r = 0; r < KH; r++)
    for (int q = 0; q < KW * C; q++, w += channels) {
      vec weight[MAX_VECTORS];
      UNROLL for (int v = 0; v < vectors; v++) {
        weight[v] = *(const unaligned_vec *)(w + v * V);
        IN_REGISTER(weight[v]);
      }
      UNROLL for (int n = 0; n < beside; n++)
        UNROLL for (int p = 0; p < P * P; p++) {
          const REAL pixel = x[(p / P + r) * ROW + (n * P + p % P) * C + q];
          UNROLL for (int v = 0; v < vectors; v++) sum[n][v][p] += pixel * weight[v];
        }
    }
  vec done[MAX_BESIDE][MAX_VECTORS][P * P];
  UNROLL for (int n = 0; n < beside; n++)
    UNROLL for (int v = 0; v < vectors; v++)
      UNROLL for (int p = 0; p < P * P; p++) done[n][v][p] = sum[n][v][p];
  /* the compiler must not interleave what follows with the loop above: it then runs out of registers there */
  __asm__ volatile("" : : "r"(done) : "memory");
  for (int n = 0; n < beside; n++)
    for (int v = 0; v < vectors; v++) {
      mask argmax;
      const vec most = largest(done[n][v], &argmax);
      store_max(y + n * step + v * V, indices ? indices + n * step + v * V : 0, most, argmax, count - v * V);
    }
}

/* A row of windows; the last ones are done twice where they do not come out even. */
INLINE void row_of_windows(const REAL *x, const REAL *w, ptrdiff_t channels, const REAL *bias, REAL *y,
                           uint8_t *indices, ptrdiff_t step, ptrdiff_t count, const int vectors) {
  const int beside = MAX(1, MIN(MIN(QW, MAX_BESIDE), SUMS / (P * P * vectors)));
  for (ptrdiff_t q = 0; q < QW; q += beside) {
    if (q > QW - beside) q = QW - beside;
    windows(x + q * P * C, w, channels, bias, y + q * step, indices ? indices + q * step : 0, step, count, vectors,
            beside);
  }
}

static ptrdiff_t padded(ptrdiff_t outputs) { return CEIL_DIV(outputs, V) * V; }

/* The size of the workspace of `forward`, in numbers. */
ptrdiff_t forward_workspace(ptrdiff_t outputs) { return (TAPS + 1) * padded(outputs) + IMAGE_BUFFER; }

/* Weights and biases, or their gradients, of all lanes: w [lanes][per][C][KH][KW], b [lanes][per] or none, with the
 * steps from lane to lane.  The outputs of all groups are those of all lanes in turn. */
struct weights {
  REAL *w, *b;
  ptrdiff_t w_step, b_step, per;
};

INLINE REAL *weights_of(const struct weights *all, ptrdiff_t output) {
  return all->w + output / all->per * all->w_step + output % all->per * TAPS;
}

INLINE REAL *bias_of(const struct weights *all, ptrdiff_t output) {
  return all->b + output / all->per * all->b_step + output % all->per;
}

/* x: maps with the strides [4] of images, channels, rows and columns; y and indices (or none)
 * [images][QH][QW][groups * outputs]. */
void forward(const REAL *x, const ptrdiff_t *strides, const struct weights *params, REAL *y, uint8_t *indices,
             ptrdiff_t images, ptrdiff_t groups, ptrdiff_t outputs, REAL *workspace) {
  const ptrdiff_t channels = padded(outputs), all = groups * outputs;
  REAL *weights = workspace, *biases = weights + TAPS * channels, *image = biases + channels;
  memset(workspace, 0, sizeof(REAL) * forward_workspace(outputs));
  for (ptrdiff_t g = 0; g < groups; g++) {
    for (ptrdiff_t o = 0; o < outputs; o++) {
      const REAL *own = weights_of(params, g * outputs + o);
      biases[o] = params->b ? *bias_of(params, g * outputs + o) : 0;
      for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t k = 0; k < KH * KW; k++) weights[(k * C + c) * channels + o] = own[c * KH * KW + k];
    }
    for (ptrdiff_t b = 0; b < images; b++) {
      copy_image(image, x + b * strides[0] + g * C * strides[1], strides);
      for (ptrdiff_t o = 0; o < outputs;) {
        const ptrdiff_t vectors = MIN((channels - o) / V, MAX_VECTORS);
        for (ptrdiff_t h = 0; h < QH; h++) {
          const REAL *from = image + h * P * ROW, *of = weights + o, *plus = biases + o;
          const ptrdiff_t at = (b * QH + h) * QW * all + g * outputs + o, left = outputs - o;
          uint8_t *argmax = indices ? indices + at : 0;
          if (MAX_VECTORS > 2 && vectors == 3)
            row_of_windows(from, of, channels, plus, y + at, argmax, all, left, MIN(3, MAX_VECTORS));
          else if (MAX_VECTORS > 1 && vectors == 2)
            row_of_windows(from, of, channels, plus, y + at, argmax, all, left, MIN(2, MAX_VECTORS));
          else
            row_of_windows(from, of, channels, plus, y + at, argmax, all, left, 1);
        }
        o += vectors * V;
      }
    }
  }
}

/* The gradients that reach the convolution, one a window and channel.  A comparison of each would be a branch that no
 * processor foretells: they are masks. */
INLINE void gate(REAL *restrict to, const REAL *restrict gradient, const REAL *restrict y, ptrdiff_t count) {
  ptrdiff_t i = 0;
  for (; i + V <= count; i += V) {
    const vec value = *(const unaligned_vec *)(y + i), all = *(const unaligned_vec *)(gradient + i);
    *(unaligned_vec *)(to + i) = RELU ? (vec)((mask)all & ~(mask)(value <= 0)) : all;
  }
  for (; i < count; i++) {
    const word shut = RELU ? -(word)(y[i] <= 0) : 0;
    word bits;
    memcpy(&bits, gradient + i, sizeof bits);
    bits &= ~shut;
    memcpy(to + i, &bits, sizeof bits);
  }
}

/* The gradients of an image's windows [WINDOWS][outputs], and their sums for each channel, in whole vectors. */
static void gate_gradients(REAL *restrict to, const REAL *restrict gradient, const REAL *restrict y, ptrdiff_t all,
                           REAL *restrict sums, ptrdiff_t outputs) {
  if (all == outputs)
    gate(to, gradient, y, WINDOWS * outputs);
  else
    for (ptrdiff_t n = 0; n < WINDOWS; n++)
      gate(to + n * outputs, gradient + n * all, y + n * all, outputs);
  for (ptrdiff_t o = 0; o < outputs; o += V) {
    vec sum = *(unaligned_vec *)(sums + o);
    for (ptrdiff_t n = 0; n < WINDOWS; n++) sum += *(const unaligned_vec *)(to + n * outputs + o);
    *(unaligned_vec *)(sums + o) = sum;
  }
}

/* Copies a strip of an image, `high` rows of pixels: copies [COPIES][COPY], each [OW][HIGH][LINE] and some more.  Numbers
 * behind a window's row are others of the image, whose products are of no use. */
static void copy_strip(REAL *restrict copies, const REAL *restrict image, ptrdiff_t high) {
  for (ptrdiff_t q = 0; q < OW; q++)
    for (ptrdiff_t h = 0; h < high; h++)
      memcpy(copies + (q * HIGH + h) * LINE, image + h * ROW + q * C, sizeof(REAL) * LINE);
  for (ptrdiff_t i = 1; i < COPIES; i++)
    memcpy(copies + i * COPY, copies + i * LINE, sizeof(REAL) * OW * HIGH * LINE);
}

/* Where a window that begins in row h of a strip's first column lies in the copies. */
INLINE ptrdiff_t row_of_copies(ptrdiff_t h) { return h % COPIES * COPY + h / COPIES * COPIES * LINE; }

/* Adds a strip's share of the weight gradients of some channels: each channel has its own argmax in each window.
 *
 * copies: of the strip; rows: of windows; indices [rows * QW][all]; gradient [rows * QW][outputs]; sums
 * [count][PATCH]. */
INLINE void weight_gradients(const REAL *restrict copies, ptrdiff_t rows, const uint8_t *restrict indices,
                             ptrdiff_t all, const REAL *restrict gradient, ptrdiff_t outputs, REAL *restrict sums,
                             const int count) {
  for (ptrdiff_t u = 0; u < PATCH; u += PART * V) {
    vec sum[ABREAST][PART];
    UNROLL for (int c = 0; c < count; c++)
      UNROLL for (int v = 0; v < PART; v++) sum[c][v] = *(unaligned_vec *)(sums + c * PATCH + u + v * V);
    for (ptrdiff_t h = 0; h < rows; h++) {
      int32_t offset[P * P];
      UNROLL for (int p = 0; p < P * P; p++) offset[p] = row_of_copies(h * P + p / P) + p % P * HIGH * LINE + u;
      for (ptrdiff_t q = 0; q < QW; q++)
        UNROLL for (int c = 0; c < count; c++) {
          const REAL *seen = copies + q * P * HIGH * LINE + offset[indices[(h * QW + q) * all + c]];
          const REAL factor = gradient[(h * QW + q) * outputs + c];
          UNROLL for (int v = 0; v < PART; v++) sum[c][v] += factor * *(const unaligned_vec *)(seen + v * V);
        }
    }
    UNROLL for (int c = 0; c < count; c++)
      UNROLL for (int v = 0; v < PART; v++) *(unaligned_vec *)(sums + c * PATCH + u + v * V) = sum[c][v];
  }
}

/* Adds to the gradient of an image.
 *
 * spread [outputs][P][KH + 2 (P - 1)][FIELD_ROW]: each channel's weights in the middle of zeros, so that the argmax
 * in a window decides where to begin to read. */
static void image_gradients(REAL *restrict gx, const REAL *restrict spread,
                            const uint8_t *restrict indices, ptrdiff_t all,
                     const REAL *restrict gradient, ptrdiff_t outputs) {
  int32_t begin[P * P];
  UNROLL for (int p = 0; p < P * P; p++) begin[p] = p % P * SHIFTED + (P - 1 - p / P) * FIELD_ROW;
  for (ptrdiff_t h = 0; h < QH; h++)
    for (ptrdiff_t q = 0; q < QW; q++) {
      const uint8_t *argmax = indices + (h * QW + q) * all;
      const REAL *factors = gradient + (h * QW + q) * outputs;
      for (ptrdiff_t r = 0; r < FIELD; r += FIELD_ROWS)
        for (ptrdiff_t u = 0; u < FIELD_LONG; u += FIELD_PART) {
          vec sum[FIELD_ROWS][FIELD_PART];
          UNROLL for (int i = 0; i < FIELD_ROWS; i++)
            UNROLL for (int v = 0; v < FIELD_PART; v++) sum[i][v] = (vec){0};
          for (ptrdiff_t o = 0; o < outputs; o++) {
            const REAL *weights = spread + o * SPREAD + begin[argmax[o]] + r * FIELD_ROW + u * V;
            const REAL factor = factors[o];
            UNROLL for (int i = 0; i < FIELD_ROWS; i++)
              UNROLL for (int v = 0; v < FIELD_PART; v++)
                sum[i][v] += factor * *(const unaligned_vec *)(weights + i * FIELD_ROW + v * V);
          }
          REAL *to = gx + (h * P + r) * ROW + q * P * C + u * V;
          UNROLL for (int i = 0; i < FIELD_ROWS; i++)
            UNROLL for (int v = 0; v < FIELD_PART; v++) *(unaligned_vec *)(to + i * ROW + v * V) += sum[i][v];
        }
    }
}

/* The size of the workspace of `backward`, in numbers. */
ptrdiff_t backward_workspace(ptrdiff_t outputs) {
  return 2 * IMAGE_BUFFER + COPIES * COPY + outputs * (PATCH + SPREAD + WINDOWS) + padded(outputs) + SLACK;
}

/* gradient, y and indices as `forward` has y; x, strides and weights as it has them; gx [images][H][W][groups * C]
 * or none; grads: where the gradients of the weights and biases go. */
void backward(const REAL *gradient, const REAL *y, const uint8_t *indices, const REAL *x, const ptrdiff_t *strides,
              const struct weights *params, REAL *gx, const struct weights *grads, ptrdiff_t images, ptrdiff_t groups,
              ptrdiff_t outputs, REAL *workspace, int adds) {
  const ptrdiff_t all = groups * outputs;
  REAL *image = workspace, *image_gradient = image + IMAGE_BUFFER, *copies = image_gradient + IMAGE_BUFFER,
       *sums = copies + COPIES * COPY, *spread = sums + outputs * PATCH,
       *gradients = spread + outputs * SPREAD, *bias_sums = gradients + outputs * WINDOWS;
  memset(workspace, 0, sizeof(REAL) * backward_workspace(outputs));
  for (ptrdiff_t g = 0; g < groups; g++) {
    memset(sums, 0, sizeof(REAL) * outputs * PATCH);
    memset(bias_sums, 0, sizeof(REAL) * padded(outputs));
    for (ptrdiff_t o = 0; gx && o < outputs; o++) {
      const REAL *own = weights_of(params, g * outputs + o);
      REAL turned[TAPS]; /* [KH][KW][C] */
      for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t k = 0; k < KH * KW; k++) turned[k * C + c] = own[c * KH * KW + k];
      for (ptrdiff_t r = 0; r < KH; r++)
        for (ptrdiff_t j = 0; j < P; j++)
          memcpy(spread + o * SPREAD + j * SHIFTED + (P - 1 + r) * FIELD_ROW + j * C, turned + r * KW * C,
                 sizeof(REAL) * KW * C);
    }
    for (ptrdiff_t b = 0; b < images; b++) {
      const uint8_t *argmax = indices + b * WINDOWS * all + g * outputs;
      copy_image(image, x + b * strides[0] + g * C * strides[1], strides);
      const ptrdiff_t at = b * WINDOWS * all + g * outputs;
      gate_gradients(gradients, gradient + at, y + at, all, bias_sums, outputs);
      for (ptrdiff_t h = 0; h < QH; h += STRIP) {
        const ptrdiff_t rows = MIN(STRIP, QH - h);
        copy_strip(copies, image + h * P * ROW, rows * P + KH - 1);
        const REAL *strip = gradients + h * QW * outputs;
        const uint8_t *chosen = argmax + h * QW * all;
        ptrdiff_t o = 0;
        for (; o + ABREAST <= outputs; o += ABREAST)
          weight_gradients(copies, rows, chosen + o, all, strip + o, outputs, sums + o * PATCH, ABREAST);
        for (; o < outputs; o++)
          weight_gradients(copies, rows, chosen + o, all, strip + o, outputs, sums + o * PATCH, 1);
      }
      if (!gx) continue;
      memset(image_gradient, 0, sizeof(REAL) * IMAGE_BUFFER);
      image_gradients(image_gradient, spread, argmax, all, gradients, outputs);
      for (ptrdiff_t h = 0; h < H; h++)
        for (ptrdiff_t q = 0; q < W; q++) {
          REAL *to = gx + ((b * H + h) * W + q) * groups * C + g * C;
          const REAL *from = image_gradient + (h + PH) * ROW + (q + PW) * C;
          if (adds)
            for (ptrdiff_t c = 0; c < C; c++) to[c] += from[c];
          else
            memcpy(to, from, sizeof(REAL) * C);
        }
    }
    for (ptrdiff_t o = 0; o < outputs; o++) {
      REAL *own = weights_of(grads, g * outputs + o);
      if (grads->b) *bias_of(grads, g * outputs + o) = bias_sums[o];
      for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t r = 0; r < KH; r++)
          for (ptrdiff_t k = 0; k < KW; k++)
            own[(c * KH + r) * KW + k] = sums[o * PATCH + r * LINE + k * C + c];
    }
  }
}

/* As an operation of a plan: one group of OUTPUTS channels, maps with the channels last; `saved` has the argmax
 * indices. */
static const ptrdiff_t op_strides[4] = {H * W * C, 1, W * C, C};

/* With one channel in and few out, vectors of channels would be mostly empty: forwards they hold columns. */
enum {
  BESIDE = CEIL_DIV(OW, V), /* vectors of a row's columns; the last one ends where the row does, or a column before */
  BY_COLUMNS = C == 1 && P == 2 && OW >= V && 2 * BESIDE <= SUMS / 2 &&
               OUTPUTS * BESIDE * V <= OW * CEIL_DIV(OUTPUTS, V) * V,
  TILES = CEIL_DIV(OUTPUTS, MAX(1, SUMS / (2 * BESIDE))),
  TILE = CEIL_DIV(OUTPUTS, TILES), /* channels at a time */
  PAIRS = CEIL_DIV(BESIDE, 2),
};

INLINE ptrdiff_t first_column(ptrdiff_t v) { return MIN(v * V, (OW - V) / 2 * 2); }

/* A row of windows of some channels; x: two rows of the image and those below them that the kernel meets. */
INLINE void row_of_columns(const REAL *x, const REAL *w, const REAL *b, REAL *y, uint8_t *indices, ptrdiff_t outputs) {
  vec sum[TILE][2][BESIDE];
  const REAL *own[TILE];
  UNROLL for (int t = 0; t < TILE; t++) {
    own[t] = w + MIN(t, outputs - 1) * TAPS;
    const vec bias = all(b ? b[MIN(t, outputs - 1)] : 0);
    UNROLL for (int i = 0; i < 2; i++)
      UNROLL for (int v = 0; v < BESIDE; v++) sum[t][i][v] = bias;
  }
  for (int r = 0; r < KH; r++)
    for (int q = 0; q < KW; q++) {
      vec weight[TILE];
      UNROLL for (int t = 0; t < TILE; t++) {
        weight[t] = all(own[t][r * KW + q]);
        IN_REGISTER(weight[t]);
      }
      UNROLL for (int i = 0; i < 2; i++)
        UNROLL for (int v = 0; v < BESIDE; v++) {
          vec pixel = *(const unaligned_vec *)(x + (r + i) * ROW + first_column(v) + q);
          IN_REGISTER(pixel);
          UNROLL for (int t = 0; t < TILE; t++) sum[t][i][v] += weight[t] * pixel;
        }
    }
  REAL values[TILE][PAIRS * V];
  word argmax[TILE][PAIRS * V];
  UNROLL for (int t = 0; t < TILE; t++)
    UNROLL for (int v = 0; v < PAIRS; v++) {
      const int left = 2 * v, right = MIN(2 * v + 1, BESIDE - 1);
      const vec window[4] = {
          SHUFFLE(sum[t][0][left], sum[t][0][right], EVEN), SHUFFLE(sum[t][0][left], sum[t][0][right], ODD),
          SHUFFLE(sum[t][1][left], sum[t][1][right], EVEN), SHUFFLE(sum[t][1][left], sum[t][1][right], ODD)};
      mask at;
      const vec most = largest(window, &at);
      memcpy(values[t] + v * V, &most, sizeof most);
      memcpy(argmax[t] + v * V, &at, sizeof at);
    }
  const ptrdiff_t here = MIN(TILE, outputs);
  UNROLL for (ptrdiff_t q = 0; q < QW; q++) {
    const ptrdiff_t v = MIN(2 * q / V, BESIDE - 1);
    const ptrdiff_t at = v * (V / 2) + q - first_column(v) / 2;
    for (ptrdiff_t t = 0; t < here; t++) {
      y[q * OUTPUTS + t] = values[t][at];
      if (indices) indices[q * OUTPUTS + t] = argmax[t][at];
    }
  }
}

static void forward_by_columns(const struct op_args *a) {
  REAL *image = a->workspace;
  if (PH || PW) memset(image, 0, sizeof(REAL) * IMAGE_BUFFER);
  for (ptrdiff_t n = 0; n < a->images; n++) {
    const REAL *x = (const REAL *)a->x[0] + n * H * W;
    if (PH || PW) copy_image(image, x, op_strides);
    for (ptrdiff_t h = 0; h < QH; h++)
      for (ptrdiff_t o = 0; o < OUTPUTS; o += TILE) {
        const REAL *w = (const REAL *)a->params[0] + o * TAPS, *b = a->params[1];
        const ptrdiff_t at = (n * QH + h) * QW * OUTPUTS + o;
        row_of_columns((PH || PW ? image : x) + 2 * h * ROW, w, b ? b + o : 0, (REAL *)a->y + at,
                       a->saved ? (uint8_t *)a->saved + at : 0, OUTPUTS - o);
      }
  }
}

void op_infer(const struct op_args *a) {
  if (BY_COLUMNS) {
    forward_by_columns(a);
    return;
  }
  const struct weights params = {(REAL *)a->params[0], (REAL *)a->params[1], 0, 0, OUTPUTS};
  forward(a->x[0], op_strides, &params, a->y, a->saved, a->images, 1, OUTPUTS, a->workspace);
}

void op_forward(const struct op_args *a) { op_infer(a); }

void op_backward(const struct op_args *a) {
  const struct weights params = {(REAL *)a->params[0], (REAL *)a->params[1], 0, 0, OUTPUTS};
  const struct weights grads = {a->grads[0], a->grads[1], 0, 0, OUTPUTS};
  backward(a->gy, a->y, a->saved, a->x[0], op_strides, &params, a->gx[0], &grads, a->images, 1, OUTPUTS, a->workspace,
           a->adds[0]);
}
