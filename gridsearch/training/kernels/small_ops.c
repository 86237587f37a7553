/* The small operations of a plan: activations in another layout, dropout, ReLU of features, and dense layers of fewer
 * inputs than `dense_layers.c` takes, each of one lane.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  Each operation
 * reads its shape from `constants`, so that no network needs a compiler of its own.
 */

#include <math.h>

#include "batch_inner.h"
#include "random.h"

enum { FEATURES, CHANNELS_LAST, BATCH_INNER };

INLINE void put(REAL *to, REAL value, int adds) { *to = adds ? *to + value : value; }

/* --- Another layout ------------------------------------------------------------------------------------------------ */

struct conversion {
  int64_t from, to, channels, pixels;
};

/* Between images in rows and a block of them, whose places of no image are set to 0.  Numbers that lie beside each other
 * in a row are `step` vectors apart in the block. */
INLINE void stretch(REAL *restrict row, REAL *restrict block, ptrdiff_t numbers, ptrdiff_t images, ptrdiff_t count,
                    ptrdiff_t step, const int to_block, int adds) {
  for (ptrdiff_t i = 0; i < count; i += V) {
    if (i + V > count) {
      if (count < V || adds) { /* what is left, one by one */
        for (; i < count; i++)
          for (ptrdiff_t n = 0; n < V; n++)
            if (to_block)
              put(block + i * step * V + n, n < images ? row[n * numbers + i] : 0, adds);
            else if (n < images)
              put(row + n * numbers + i, block[i * step * V + n], adds);
        return;
      }
      i = count - V; /* some of them twice */
    }
    vec tile[V];
    UNROLL for (int n = 0; n < V; n++) {
      if (to_block)
        tile[n] = (vec){0};
      else
        tile[n] = *(const unaligned_vec *)(block + (i + n) * step * V);
    }
    if (to_block)
      for (ptrdiff_t n = 0; n < images; n++) tile[n] = *(const unaligned_vec *)(row + n * numbers + i);
    exchange(tile);
    UNROLL for (int n = 0; n < V; n++) {
      if (!to_block && n >= images) continue;
      unaligned_vec *to = (unaligned_vec *)(to_block ? block + (i + n) * step * V : row + n * numbers + i);
      if (adds) tile[n] += *to;
      *to = tile[n];
    }
  }
}

INLINE void blocks(const struct conversion *s, REAL *rows, REAL *inner, ptrdiff_t images, int64_t layout,
                   const int to_block, int adds) {
  const ptrdiff_t numbers = s->channels * s->pixels;
  for (ptrdiff_t b = 0; b < images; b += V, rows += V * numbers, inner += V * numbers) {
    const ptrdiff_t here = MIN(V, images - b);
    if (layout == CHANNELS_LAST)
      stretch(rows, inner, numbers, here, numbers, 1, to_block, adds);
    else
      for (ptrdiff_t c = 0; c < s->channels; c++)
        stretch(rows + c * s->pixels, inner + c * V, numbers, here, s->pixels, s->channels, to_block, adds);
  }
}

static void convert(const struct conversion *s, const REAL *from, REAL *to, ptrdiff_t images, int64_t before,
                    int64_t after, int adds) {
  const ptrdiff_t channels = s->channels, pixels = s->pixels;
  if (after == BATCH_INNER) {
    blocks(s, (REAL *)from, to, images, before, 1, adds);
    return;
  }
  if (before == BATCH_INNER) {
    blocks(s, to, (REAL *)from, images, after, 0, adds);
    return;
  }
  for (ptrdiff_t n = 0; n < images; n++, from += channels * pixels, to += channels * pixels)
    for (ptrdiff_t c = 0; c < channels; c++)
      for (ptrdiff_t p = 0; p < pixels; p++) {
        const ptrdiff_t feature = c * pixels + p, last = p * channels + c;
        put(to + (after == FEATURES ? feature : last), from[before == FEATURES ? feature : last], adds);
      }
}

void convert_forward(const struct op_args *a) {
  const struct conversion *s = a->constants;
  convert(s, a->x[0], a->y, a->images, s->from, s->to, 0);
}

void convert_infer(const struct op_args *a) { convert_forward(a); }

void convert_backward(const struct op_args *a) {
  const struct conversion *s = a->constants;
  if (a->gx[0]) convert(s, a->gy, a->gx[0], a->images, s->to, s->from, a->adds[0]);
}

/* --- Dropout, with the mask that torch would draw for the lane alone ---------------------------------------------- */

struct dropout {
  int64_t inner;          /* whether a batch is whole blocks of V images */
  int64_t numbers, drawn; /* of an image, and of torch's mask for it */
  int64_t step;           /* of those so many lie beside each other, before the next image's */
  int64_t from_recipe;    /* a lane's rate goes before the model's own */
  int64_t alpha;          /* what is dropped becomes the least that SELU gives, and all keeps its mean and variance */
  double rate;
  const int32_t *places; /* [numbers]: of each number in torch's mask of its image */
};

/* Bytes of 1 for what is kept: a number of 53 bits, from two words of which the first is the higher, is below `keep`. */
static void draw_mask(struct random *r, uint8_t *mask, ptrdiff_t count, double keep) {
  const uint64_t limit = (uint64_t)ceil(ldexp(keep, 53));
  for (ptrdiff_t done = 0; done < count;) {
    if (r->next == WORDS) draw_words(r);
    const ptrdiff_t here = MIN(count - done, (WORDS - r->next) / 2);
    const uint32_t *words = r->drawn + r->next;
    for (ptrdiff_t i = 0; i < here; i++)
      mask[done + i] = ((uint64_t)(words[2 * i] & 0x1fffffu) << 32 | words[2 * i + 1]) < limit;
    done += here;
    r->next += 2 * here;
  }
}

/* buffers[0]: the lane's `struct random`. */
static double dropout_rate(const struct op_args *a) {
  const struct dropout *s = a->constants;
  const struct random *r = a->buffers[0];
  return s->from_recipe && r->rate >= 0 ? r->rate : s->rate;
}

/* The mask of a batch in the activation's layout, from torch's own order; places of no image are 0. */
static void order_mask(const struct dropout *s, const uint8_t *restrict drawn, uint8_t *restrict mask,
                       ptrdiff_t images) {
  const ptrdiff_t side = s->inner ? V : 1;
  for (ptrdiff_t b = 0; b < images; b += side)
    for (ptrdiff_t i = 0; i < s->numbers; i++, mask += side) {
      const ptrdiff_t place = s->places[i], before = s->step < s->drawn ? place / s->step * s->step : 0;
      const uint8_t *from = drawn + before * images + place - before + b * s->step;
      if (b + side <= images)
        for (ptrdiff_t v = 0; v < side; v++) mask[v] = from[v * s->step];
      else
        for (ptrdiff_t v = 0; v < side; v++) mask[v] = b + v < images ? from[v * s->step] : 0;
    }
}

/* saved: the mask as it is drawn, then in the activation's layout. */
static uint8_t *ordered(const struct op_args *a) {
  const struct dropout *s = a->constants;
  return (uint8_t *)a->saved + CEIL_DIV(a->images * s->drawn, 64) * 64;
}

static ptrdiff_t dropout_numbers(const struct op_args *a) {
  const struct dropout *s = a->constants;
  return (s->inner ? CEIL_DIV(a->images, V) * V : a->images) * s->numbers;
}

/* to = from where the mask is set, times a scale, plus a shift; what is dropped is from times 0, as torch has it, plus a
 * level.  For the gradient, shift and level are 0. */
static void apply_mask(const struct op_args *a, const REAL *restrict from, REAL *restrict to, int adds, int moves) {
  const struct dropout *s = a->constants;
  const double rate = dropout_rate(a), least = 1.7580993408473766; /* SELU gives no less than minus this */
  const ptrdiff_t count = dropout_numbers(a);
  const uint8_t *restrict mask = ordered(a);
  REAL scale = rate >= 1 ? 0 : 1 / (REAL)(1 - rate), shift = 0, level = 0;
  if (s->alpha && rate > 0 && rate < 1) {
    const double keeps = 1 / sqrt((least * least * rate + 1) * (1 - rate));
    scale = (REAL)keeps;
    if (moves) shift = (REAL)(least * keeps * rate), level = (REAL)(least * keeps * (rate - 1));
  }
  /* a mask's byte as a factor: a choice would be a jump, which a random mask makes the processor mispredict */
  if (adds)
    for (ptrdiff_t i = 0; i < count; i++) to[i] += from[i] * (scale * (REAL)mask[i]);
  else
    for (ptrdiff_t i = 0; i < count; i++) to[i] = from[i] * (scale * (REAL)mask[i]);
  const REAL beside[] = {level, shift};
  for (ptrdiff_t i = 0; moves && s->alpha && i < count; i++) to[i] += beside[mask[i]];
}

void dropout_forward(const struct op_args *a) {
  const struct dropout *s = a->constants;
  const double rate = dropout_rate(a);
  const ptrdiff_t drawn = a->images * s->drawn;
  if (rate > 0 && rate < 1)
    draw_mask(a->buffers[0], a->saved, drawn, 1 - rate);
  else
    memset(a->saved, rate == 0, drawn);
  order_mask(s, a->saved, ordered(a), a->images);
  apply_mask(a, a->x[0], a->y, 0, 1);
}

void dropout_infer(const struct op_args *a) { memcpy(a->y, a->x[0], sizeof(REAL) * dropout_numbers(a)); }

void dropout_backward(const struct op_args *a) {
  if (a->gx[0]) apply_mask(a, a->gy, a->gx[0], a->adds[0], 0);
}

/* --- ReLU of features, or leaky ReLU, where no other operation takes it along -------------------------------------- */

struct rectifier {
  int64_t features;
  double slope;
};

void rectify_forward(const struct op_args *a) {
  const struct rectifier *s = a->constants;
  const REAL *restrict x = a->x[0], slope = s->slope;
  REAL *restrict y = a->y;
  for (ptrdiff_t i = 0; i < a->images * s->features; i++) y[i] = x[i] <= 0 ? (slope > 0 ? slope * x[i] : 0) : x[i];
}

void rectify_infer(const struct op_args *a) { rectify_forward(a); }

void rectify_backward(const struct op_args *a) {
  const struct rectifier *s = a->constants;
  const REAL *restrict x = a->x[0], *restrict gy = a->gy;
  const REAL slope = s->slope;
  REAL *restrict gx = a->gx[0];
  if (gx)
    for (ptrdiff_t i = 0; i < a->images * s->features; i++)
      put(gx + i, x[i] <= 0 ? (slope > 0 ? slope * gy[i] : 0) : gy[i], a->adds[0]);
}

/* --- A dense layer of few inputs, with ReLU after it or not --------------------------------------------------------- */

/* A library's products would depend on where a lane's weights lie: these sums have one order, in which vectors are of
 * outputs. */
struct narrow {
  int64_t inputs, outputs, relu;
};

/* workspace: weights [inputs][outputs] */
void narrow_forward(const struct op_args *a) {
  const struct narrow *s = a->constants;
  const REAL *restrict w = a->params[0], *restrict bias = a->params[1], *x = a->x[0];
  REAL *restrict turned = a->workspace, *restrict y = a->y;
  for (ptrdiff_t o = 0; o < s->outputs; o++)
    for (ptrdiff_t i = 0; i < s->inputs; i++) turned[i * s->outputs + o] = w[o * s->inputs + i];
  for (ptrdiff_t n = 0; n < a->images; n++, x += s->inputs, y += s->outputs) {
    for (ptrdiff_t o = 0; o < s->outputs; o++) y[o] = bias ? bias[o] : 0;
    for (ptrdiff_t i = 0; i < s->inputs; i++)
      for (ptrdiff_t o = 0; o < s->outputs; o++) y[o] += x[i] * turned[i * s->outputs + o];
    for (ptrdiff_t o = 0; s->relu && o < s->outputs; o++) y[o] = y[o] <= 0 ? 0 : y[o];
  }
}

void narrow_infer(const struct op_args *a) { narrow_forward(a); }

/* workspace: gradients of the weights [inputs][outputs], and of the biases */
void narrow_backward(const struct op_args *a) {
  const struct narrow *s = a->constants;
  const ptrdiff_t inputs = s->inputs, outputs = s->outputs;
  const REAL *restrict w = a->params[0], *restrict x = a->x[0], *y = a->y;
  REAL *restrict gy = (REAL *)a->gy, *restrict gx = a->gx[0], *restrict gw = a->grads[0];
  REAL *restrict turned = a->workspace, *restrict sums = turned + inputs * outputs;
  memset(turned, 0, sizeof(REAL) * (inputs + 1) * outputs);
  for (ptrdiff_t n = 0; n < a->images; n++, x += inputs, y += outputs, gy += outputs) {
    for (ptrdiff_t o = 0; s->relu && o < outputs; o++) gy[o] = y[o] <= 0 ? 0 : gy[o];
    for (ptrdiff_t o = 0; o < outputs; o++) sums[o] += gy[o];
    for (ptrdiff_t i = 0; i < inputs; i++)
      for (ptrdiff_t o = 0; o < outputs; o++) turned[i * outputs + o] += x[i] * gy[o];
    if (!gx) continue;
    for (ptrdiff_t i = 0; i < inputs && !a->adds[0]; i++) gx[i] = 0;
    for (ptrdiff_t o = 0; o < outputs; o++)
      for (ptrdiff_t i = 0; i < inputs; i++) gx[i] += gy[o] * w[o * inputs + i];
    gx += inputs;
  }
  for (ptrdiff_t o = 0; o < outputs; o++)
    for (ptrdiff_t i = 0; i < inputs; i++) gw[o * inputs + i] = turned[i * outputs + o];
  if (a->grads[1]) memcpy(a->grads[1], sums, sizeof(REAL) * outputs);
}
