/* A run of stages over maps: a convolution, max pooling, batch norm, a residual sum, an activation, max pooling;
 * each of them or none.
 *
 * Compiled once for a machine; shapes come with a call (`op_args.constants`).  Block by block: what a stage gives the
 * next one stays in the core's own cache, and only what the next operation or the backward pass reads is written out.
 */

#include "map_norm.h"
#include "map_products.h"
#include "map_transposed.h"

/* y = scale * x + shift of each channel, plus `more`, and the activation; each of them or none. */
static void finish(const struct shapes *s, const vec *x, const REAL *scale, const REAL *shift, const vec *more,
                   vec *y, int activates) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  for (ptrdiff_t p = 0; p < pixels; p++, x += channels, y += channels) {
    for (ptrdiff_t c = 0; c < channels; c++) {
      vec value = scale ? x[c] * all(scale[c]) + all(shift[c]) : x[c];
      if (more) value += more[c];
      if (activates) value = activated(s, value);
      y[c] = value;
    }
    if (more) more += channels;
  }
}

static uint8_t *indices(uint8_t *argmax, ptrdiff_t block, ptrdiff_t numbers) {
  return argmax ? argmax + block * numbers * V : 0;
}

/* The convolution of some blocks, and the pooling right after it; `to` is where the result may go. */
static const vec *enter(const struct shapes *s, const struct workspace *w, const vec *x, vec *to, uint8_t *argmax,
                        ptrdiff_t blocks) {
  const int pools = s->pool[BEFORE].is;
  const vec *maps = x;
  if (s->convolves) {
    vec *own = pools ? w->convolved : to;
    multiply_blocks(s, &s->sums, x, w, own, blocks, 0);
    maps = own;
  }
  if (!pools) return maps;
  for (ptrdiff_t b = 0; b < blocks; b++)
    max_pool(&s->pool[BEFORE], maps + b * convolved(s), to + b * middle(s), indices(argmax, b, middle(s)), s->rows,
             s->columns, s->outputs);
  return to;
}

/* What comes after the maps before batch norm, for a block. */
static void leave(const struct shapes *s, const vec *maps, const REAL *channel, const vec *more, vec *y,
                  uint8_t *argmax) {
  const REAL *scale = s->normalizes ? channel : 0, *shift = channel + s->outputs;
  if (!s->pool[AFTER].is) {
    if (scale || more || s->activates || maps != y) finish(s, maps, scale, shift, more, y, (int)s->activates);
    return;
  }
  const struct pool *p = &s->pool[AFTER];
  const ptrdiff_t rows = s->pool[BEFORE].is ? s->pool[BEFORE].rows : s->rows, columns = middle_pixels(s) / rows;
  if (scale)
    max_pool_scaled(p, maps, scale, shift, y, argmax, rows, columns, s->outputs);
  else
    max_pool(p, maps, y, argmax, rows, columns, s->outputs);
  if (!s->activates) return;
  for (ptrdiff_t i = 0; i < result(s); i++) /* what grows with its argument may come after the maximum */
    y[i] = activated(s, y[i]);
}

static void start(const struct shapes *s, const struct op_args *a, struct workspace *w) {
  lay_out_workspace(s, a->workspace, w);
  if (s->convolves) pack(s, &s->sums, a->params[0], s->has_bias ? a->params[1] : 0, w, 0);
}

static const vec *summand(const struct shapes *s, const struct op_args *a, ptrdiff_t block) {
  return s->adds ? (const vec *)a->x[1] + block * middle(s) : 0;
}

/* In evaluation each block goes through all stages; in training without batch norm too. */
static void run_through(const struct shapes *s, const struct op_args *a, struct workspace *w,
                        const struct saved *saved) {
  if (s->normalizes) {
    const REAL *var = a->buffers[1];
    REAL *scale = w->channel + 2 * s->outputs;
    for (ptrdiff_t c = 0; c < s->outputs; c++) scale[c] = (REAL)(1 / sqrt((double)var[c] + s->eps));
    affine_of(s, a->buffers[0], scale, a, w->channel);
  }
  const ptrdiff_t blocks = CEIL_DIV(a->images, V);
  for (ptrdiff_t first = 0; first < blocks; first += s->span) {
    const ptrdiff_t end = MIN(first + s->span, blocks);
    vec *to = s->pool[AFTER].is || s->adds ? w->middle : (vec *)a->y + first * result(s);
    const vec *maps = enter(s, w, (const vec *)a->x[0] + first * entered(s), to,
                            indices(saved->argmax[BEFORE], first, middle(s)), end - first);
    for (ptrdiff_t b = first; b < end; b++, maps += middle(s))
      leave(s, maps, w->channel, summand(s, a, b), (vec *)a->y + b * result(s),
            indices(saved->argmax[AFTER], b, result(s)));
  }
}

void infer(const struct op_args *a) {
  const struct shapes *s = a->constants;
  struct workspace w;
  start(s, a, &w);
  run_through(s, a, &w, &(struct saved){0});
}

void forward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  const ptrdiff_t blocks = CEIL_DIV(a->images, V);
  struct workspace w;
  struct saved saved;
  start(s, a, &w);
  lay_out_saved(s, a->saved, blocks, &saved);
  if (!s->pool[BEFORE].is) saved.argmax[BEFORE] = 0;
  if (!s->pool[AFTER].is) saved.argmax[AFTER] = 0;
  if (!s->normalizes) {
    run_through(s, a, &w, &saved);
    return;
  }
  memset(w.statistics, 0, sizeof(double) * 2 * s->outputs);
  for (ptrdiff_t b = 0; b < blocks; b++) {
    vec *to = saved.before + b * middle(s);
    if (b % s->span == 0) {
      const ptrdiff_t some = MIN(s->span, blocks - b);
      const vec *maps = enter(s, &w, (const vec *)a->x[0] + b * entered(s), to,
                              indices(saved.argmax[BEFORE], b, middle(s)), some);
      if (maps != to) memcpy(to, maps, sizeof(vec) * some * middle(s));
    }
    add_statistics(s, to, present(a->images, b), (double)b * V * middle_pixels(s), w.statistics,
                   w.statistics + s->outputs, w.partial);
  }
  close_statistics(s, a, &w, &saved);
  affine_of(s, saved.mean, saved.scale, a, w.channel);
  for (ptrdiff_t b = 0; b < blocks; b++)
    leave(s, saved.before + b * middle(s), w.channel, summand(s, a, b), (vec *)a->y + b * result(s),
          indices(saved.argmax[AFTER], b, result(s)));
}

/* Writes the gradient of the convolution's result in one block (or of the input, where there is no convolution). */
static void gradient_of_block(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                              const struct saved *saved, ptrdiff_t b, vec *to_convolution) {
  const vec *gy = (const vec *)a->gy + b * result(s);
  const vec *y = s->activates ? (const vec *)a->y + b * result(s) : 0;
  const int pools = s->pool[BEFORE].is;
  vec *gradient = pools ? w->middle : to_convolution, *added = s->adds && a->gx[1] ? (vec *)a->gx[1] + b * middle(s) : 0;
  const struct norm own = {saved->before + b * middle(s), saved->mean, w->channel, w->channel + s->outputs,
                           w->channel + 2 * s->outputs, present(a->images, b)};
  const struct norm *norm = s->normalizes ? &own : 0;
  if (s->pool[AFTER].is) {
    const ptrdiff_t columns = pools ? s->pool[BEFORE].columns : s->columns;
    max_pool_gradient(s, &s->pool[AFTER], gy, y, saved->argmax[AFTER] + b * result(s) * V, norm, gradient,
                      middle_pixels(s) / columns, columns);
  } else {
    pixel_gradients(s, gy, y, norm, added, a->adds[1], gradient);
  }
  if (pools)
    max_pool_gradient(s, &s->pool[BEFORE], gradient, 0, saved->argmax[BEFORE] + b * middle(s) * V, 0, to_convolution,
                      s->rows, s->columns);
}

void backward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  const ptrdiff_t blocks = CEIL_DIV(a->images, V);
  const int trains = s->convolves && a->grads[0]; /* else nobody wants the gradients of the convolution's parameters */
  struct workspace w;
  struct saved saved;
  lay_out_workspace(s, a->workspace, &w);
  lay_out_saved(s, a->saved, blocks, &saved);
  if (s->normalizes) norm_gradients(s, a, &w, &saved, blocks);
  double *bias = w.statistics + 2 * s->outputs;
  if (trains) memset(bias, 0, sizeof(double) * s->outputs);
  if (s->convolves && a->gx[0]) pack(s, &s->data, a->params[0], 0, &w, 1);
  for (ptrdiff_t b = 0; b < blocks; b++) {
    const ptrdiff_t place = b % s->span;
    vec *gradient = w.gradient + place * convolved(s);
    gradient_of_block(s, a, &w, &saved, b, gradient);
    if (trains && s->has_bias) add_channel_sums(gradient, s->rows * s->columns, s->outputs, &w, bias);
    if (place + 1 < s->span && b + 1 < blocks) continue;
    const ptrdiff_t from = (b - place) * entered(s);
    vec *gx = a->gx[0] ? (vec *)a->gx[0] + from : 0;
    if (trains) weight_gradients(s, (const vec *)a->x[0] + from, w.gradient, place + 1, &w, b > place);
    if (gx && s->convolves) multiply_blocks(s, &s->data, w.gradient, &w, gx, place + 1, a->adds[0]);
    if (gx && !s->convolves)
      for (ptrdiff_t i = 0; i < entered(s); i++) gx[i] = a->adds[0] ? gx[i] + gradient[i] : gradient[i];
  }
  if (!trains) return;
  unpack(s, &w, a->grads[0]);
  for (ptrdiff_t c = 0; s->has_bias && c < s->outputs; c++) ((REAL *)a->grads[1])[c] = (REAL)bias[c];
}
