/* A run of stages over maps: a convolution, max pooling, batch norm, a residual sum, an activation, max pooling; each of
 * them or none.
 *
 * Compiled once for a machine; shapes come with a call (`op_args.constants`).  Block by block: what a stage gives the
 * next one stays in the core's own cache, and only what the next operation or the backward pass reads is written out.
 */

#include <math.h>

#include "convolution.h"

enum { BEFORE, AFTER }; /* max pooling: before batch norm and the sum, or after the activation */

struct pool {
  int64_t is, kernel[2], step[2], padding[2], rows, columns; /* rows and columns of the result */
};

/* All shapes of an operation. */
struct shapes {
  int64_t channels, height, width; /* of the input */
  int64_t convolves, has_bias, outputs, rows, columns, kernel[2], step[2], padding[2], dilation[2], groups;
  int64_t merged;       /* gradients of the weights: sums run over taps and channels beside each other, else channels */
  int64_t chunk;        /* rows of the result at a time there */
  int64_t span;         /* and blocks, where maps are small */
  int64_t whole[2], first[2]; /* kernel as the weights have it, and its first tap that is ever used */
  int64_t gradient_channels, narrows; /* outputs at a time there; whether bfloat16 is multiplied */
  struct product sums, data;
  struct pool pool[2];
  int64_t normalizes, affine;
  double eps, momentum;
  int64_t adds, activates;
  double slope; /* of the activation below zero */
};

/* Maps between the stages, of one block, in vectors. */
static ptrdiff_t convolved(const struct shapes *s) { return s->rows * s->columns * s->outputs; }
static ptrdiff_t entered(const struct shapes *s) { return s->height * s->width * s->channels; }
static ptrdiff_t middle_pixels(const struct shapes *s) {
  return s->pool[BEFORE].is ? s->pool[BEFORE].rows * s->pool[BEFORE].columns : s->rows * s->columns;
}
static ptrdiff_t middle(const struct shapes *s) { return middle_pixels(s) * s->outputs; }
static ptrdiff_t result(const struct shapes *s) {
  return s->pool[AFTER].is ? s->pool[AFTER].rows * s->pool[AFTER].columns * s->outputs : middle(s);
}
static ptrdiff_t taps(const struct shapes *s) { return s->kernel[0] * s->kernel[1]; }

/* The words of some channels: two share one where bfloat16 is multiplied. */
static ptrdiff_t words_of(const struct product *p, ptrdiff_t channels) { return p->narrows ? CEIL_DIV(channels, 2) : channels; }

/* What `forward` leaves for `backward`: the maps before batch norm, argmax indices, and each channel's statistics. */
struct saved {
  vec *before;
  uint8_t *argmax[2];
  REAL *mean, *scale; /* [outputs]; scale: of the normalization, without the weight */
};

static ptrdiff_t lay_out_saved(const struct shapes *s, char *at, ptrdiff_t blocks, struct saved *saved) {
  const char *start = at;
  saved->before = (vec *)at;
  if (s->normalizes) at += sizeof(vec) * blocks * middle(s);
  saved->argmax[BEFORE] = (uint8_t *)at;
  if (s->pool[BEFORE].is) at += V * blocks * middle(s);
  saved->argmax[AFTER] = (uint8_t *)at;
  if (s->pool[AFTER].is) at += V * blocks * result(s);
  at = (char *)(((uintptr_t)at + BYTES - 1) / BYTES * BYTES);
  saved->mean = (REAL *)at;
  saved->scale = saved->mean + s->outputs;
  return (char *)(saved->scale + s->outputs) - start;
}

int64_t saved_bytes(const struct shapes *s, int64_t images) {
  struct saved saved;
  return lay_out_saved(s, 0, CEIL_DIV(images, V), &saved) + BYTES;
}

/* Memory of a call: maps of one block, packed weights, and what the gradients of the weights need. */
struct workspace {
  vec *convolved, *middle, *gradient, *words;
  REAL *weights, *bias;
  vec *map, *gradients, *sums;
  ptrdiff_t sums_bytes;
  double *statistics; /* [4][outputs] */
  REAL *channel;      /* [4][outputs] */
  vec *partial;       /* [2][outputs] */
};

/* How the sums for the gradients of the weights lie: [groups][outer][middle][kernel rows][inner][of a tile]. */
struct tiling {
  ptrdiff_t inputs; /* of a tile */
  ptrdiff_t outer;  /* tiles of outputs */
  ptrdiff_t middle; /* of inputs; 1 where those and the taps are summed together */
  ptrdiff_t inner;  /* taps of a row, or tiles of inputs and taps */
};

static struct tiling tiling_of(const struct shapes *s) {
  const ptrdiff_t inputs = tile_pixels(s->gradient_channels), own = s->channels / s->groups;
  return (struct tiling){inputs, CEIL_DIV(s->outputs / s->groups, s->gradient_channels),
                         s->merged ? 1 : CEIL_DIV(own, inputs),
                         s->merged ? CEIL_DIV(s->kernel[1] * own, inputs) : s->kernel[1]};
}

static ptrdiff_t sums_of_tile(const struct shapes *s) {
  return CEIL_DIV(s->gradient_channels * tile_pixels(s->gradient_channels), V);
}

static char *take(char **at, ptrdiff_t bytes) {
  char *own = *at;
  *at += CEIL_DIV(bytes, BYTES) * BYTES;
  return own;
}

static ptrdiff_t lay_out_workspace(const struct shapes *s, char *at, struct workspace *w) {
  const char *start = at;
  w->convolved = (vec *)take(&at, sizeof(vec) * convolved(s));
  w->middle = (vec *)take(&at, sizeof(vec) * middle(s));
  w->gradient = (vec *)take(&at, sizeof(vec) * s->span * convolved(s));
  w->words = (vec *)take(&at, sizeof(vec) * MAX(s->sums.narrows ? entered(s) + s->height * s->width * s->groups : 0,
                                                s->data.narrows ? convolved(s) + s->rows * s->columns * s->groups : 0));
  w->statistics = (double *)take(&at, sizeof(double) * 4 * s->outputs);
  w->channel = (REAL *)take(&at, sizeof(REAL) * 4 * s->outputs);
  w->partial = (vec *)take(&at, sizeof(vec) * 2 * s->outputs);
  if (s->convolves) {
    const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups;
    const ptrdiff_t forth = packed_outputs(&s->sums, out) * own, back = packed_outputs(&s->data, own) * out;
    w->weights = (REAL *)take(&at, sizeof(REAL) * s->groups * taps(s) * MAX(forth, back));
    w->bias = (REAL *)take(&at, sizeof(REAL) * (s->groups * packed_outputs(&s->sums, out) + s->groups *
                                                packed_outputs(&s->data, own)));
    const struct tiling t = tiling_of(s);
    const ptrdiff_t rows = (s->chunk - 1) * s->step[0] + (s->kernel[0] - 1) * s->dilation[0] + 1;
    const ptrdiff_t columns = (s->columns - 1) * s->step[1] + (s->kernel[1] - 1) * s->dilation[1] + 1;
    w->map = (vec *)take(&at, sizeof(vec) * (s->span * rows * columns * (s->merged ? own : t.inputs) + MOST_PIXELS));
    w->gradients = (vec *)take(&at, sizeof(vec) * s->span * s->chunk * s->columns * t.outer * s->gradient_channels);
    w->sums_bytes = sizeof(vec) * s->groups * t.outer * t.middle * s->kernel[0] * t.inner * sums_of_tile(s);
    w->sums = (vec *)take(&at, w->sums_bytes);
  }
  return at - start;
}

int64_t workspace_bytes(const struct shapes *s) {
  struct workspace w;
  return lay_out_workspace(s, 0, &w) + BYTES;
}

/* Packs weights [outputs][inputs of a group][taps] for `multiply`: forwards, or turned for the gradient of the input. */
static void pack(const struct shapes *s, const struct product *p, const REAL *restrict w, const REAL *bias,
                 REAL *restrict to, REAL *restrict biases, int turned) {
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, all_taps = taps(s), n = p->channels;
  const ptrdiff_t rows = turned ? out : own, columns = turned ? own : out, padded = packed_outputs(p, columns);
  const ptrdiff_t each = p->narrows ? 2 : 1, packed_rows = words_of(p, rows);
  const ptrdiff_t whole = s->whole[0] * s->whole[1], first = s->first[0] * s->whole[1] + s->first[1];
  const ptrdiff_t by_row = turned ? own * whole : whole, by_column = turned ? whole : own * whole;
  for (ptrdiff_t g = 0; g < s->groups; g++) {
    const REAL *from = w + g * out * own * whole + first;
    for (ptrdiff_t o = 0; o < padded; o += n, to += all_taps * packed_rows * n) {
      const ptrdiff_t there = MIN(n, columns - o);
      const REAL *row = from + o * by_column;
      for (ptrdiff_t i = 0; i < packed_rows; i++, row += each * by_row) {
        REAL *packed = to + i * n;
        for (ptrdiff_t r = 0; r < s->kernel[0]; r++) /* taps inmost, for a number's taps are beside each other */
          for (ptrdiff_t c = 0; c < s->kernel[1]; c++, packed += packed_rows * n) {
            /* turned: the columns of taps backwards, as they then lie beside each other in the map */
            const REAL *number = row + r * s->whole[1] + (turned ? s->kernel[1] - 1 - c : c);
            for (ptrdiff_t j = 0; !p->narrows && j < there; j++) packed[j] = number[j * by_column];
            const REAL *second = i * 2 + 1 < rows ? number + by_row : 0;
            for (ptrdiff_t j = 0; p->narrows && j < there; j++)
              packed[j] = word_of(number[j * by_column], second ? second[j * by_column] : 0);
            for (ptrdiff_t j = there; j < n; j++) packed[j] = 0;
          }
      }
    }
    for (ptrdiff_t o = 0; o < padded; o++) biases[g * padded + o] = bias && o < columns ? bias[g * out + o] : 0;
  }
}

/* The part of a window that lies on the map. */
struct window {
  ptrdiff_t top, left, h0, h1, w0, w1; /* h and w from top and left */
};

static struct window window_of(const struct pool *p, ptrdiff_t r, ptrdiff_t q, ptrdiff_t rows, ptrdiff_t columns) {
  const ptrdiff_t top = r * p->step[0] - p->padding[0], left = q * p->step[1] - p->padding[1];
  return (struct window){top, left, MAX(0, -top), MIN(p->kernel[0], rows - top), MAX(0, -left), MIN(p->kernel[1], columns - left)};
}

static int is_square(const struct window *w, int side) { return !w->h0 && !w->w0 && w->h1 == side && w->w1 == side; }

/* The largest of a window of all channels, where the first of equal values counts and NaN is the largest. */
INLINE void max_of_window(const vec *restrict window, ptrdiff_t columns, ptrdiff_t channels, const ptrdiff_t h0,
                          const ptrdiff_t h1, const ptrdiff_t w0, const ptrdiff_t w1, const ptrdiff_t side,
                          vec *restrict y, uint8_t *restrict argmax) {
  for (ptrdiff_t c = 0; c < channels; c++) {
    vec most = window[(h0 * columns + w0) * channels + c];
    mask index = (mask){0} + (word)(h0 * side + w0);
    for (ptrdiff_t h = h0; h < h1; h++)
      for (ptrdiff_t w = w0; w < w1; w++) {
        const vec value = window[(h * columns + w) * channels + c];
        const mask more = (mask)(value > most) | (mask)(value != value);
        most = where(more, value, most);
        index = (index & ~more) | (((mask){0} + (word)(h * side + w)) & more);
      }
    y[c] = most;
    if (argmax) *(index_vec *)(argmax + c * V) = __builtin_convertvector(index, index_vec);
  }
}

/* Max pooling of a block; argmax may be NULL. */
static void max_pool(const struct pool *p, const vec *restrict x, vec *restrict y, uint8_t *restrict argmax,
                     ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t channels) {
  for (ptrdiff_t r = 0; r < p->rows; r++)
    for (ptrdiff_t q = 0; q < p->columns; q++, y += channels, argmax = argmax ? argmax + channels * V : 0) {
      const struct window w = window_of(p, r, q, rows, columns);
      const vec *window = x + (w.top * columns + w.left) * channels;
      if (p->kernel[1] == 2 && is_square(&w, 2)) /* the usual ones with sides that the compiler knows */
        max_of_window(window, columns, channels, 0, 2, 0, 2, 2, y, argmax);
      else if (p->kernel[1] == 3 && is_square(&w, 3))
        max_of_window(window, columns, channels, 0, 3, 0, 3, 3, y, argmax);
      else
        max_of_window(window, columns, channels, w.h0, w.h1, w.w0, w.w1, p->kernel[1], y, argmax);
    }
}

INLINE mask index_at(const uint8_t *argmax) {
  return __builtin_convertvector(*(const index_vec *)argmax, mask);
}

/* Whether windows neither overlap nor leave anything out. */
static int partitions(const struct pool *p, ptrdiff_t rows, ptrdiff_t columns) {
  return p->kernel[0] == p->step[0] && p->kernel[1] == p->step[1] && !p->padding[0] && !p->padding[1] &&
         p->rows * p->step[0] == rows && p->columns * p->step[1] == columns;
}

/* The numbers, and where `low` times the slope: without one zeros, also of what is no finite number. */
INLINE vec sloped(mask low, vec numbers, REAL slope) {
  return slope == 0 ? (vec)((mask)numbers & ~low) : where(low, all(slope) * numbers, numbers);
}

/* The gradient of the maps, given that of the pooled maps; y gates it where an activation follows, else NULL. */
INLINE vec gated(const struct shapes *s, vec gradient, const vec *y) {
  return y ? sloped((mask)(*y <= 0), gradient, (REAL)s->slope) : gradient;
}

/* Spreads a window's gradients over the map, or adds them. */
INLINE void spread(const struct shapes *s, const vec *restrict gy, const vec *restrict y, const uint8_t *restrict argmax,
                   vec *restrict window, ptrdiff_t columns, const ptrdiff_t h0, const ptrdiff_t h1, const ptrdiff_t w0,
                   const ptrdiff_t w1, const ptrdiff_t side, const int writes) {
  const ptrdiff_t channels = s->outputs;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const vec gradient = gated(s, gy[c], y ? y + c : 0);
    const mask index = index_at(argmax + c * V);
    for (ptrdiff_t h = h0; h < h1; h++)
      for (ptrdiff_t w = w0; w < w1; w++) {
        const vec own = (vec)((mask)gradient & (index == (word)(h * side + w)));
        vec *to = window + (h * columns + w) * channels + c;
        *to = writes ? own : *to + own;
      }
  }
}

static void max_pool_gradient(const struct shapes *s, const struct pool *p, const vec *restrict gy, const vec *restrict y,
                              const uint8_t *restrict argmax, vec *restrict gx, ptrdiff_t rows, ptrdiff_t columns) {
  const ptrdiff_t channels = s->outputs;
  const int writes = partitions(p, rows, columns);
  if (!writes) memset(gx, 0, sizeof(vec) * rows * columns * channels);
  for (ptrdiff_t r = 0; r < p->rows; r++)
    for (ptrdiff_t q = 0; q < p->columns; q++, gy += channels, y = y ? y + channels : 0, argmax += channels * V) {
      const struct window w = window_of(p, r, q, rows, columns);
      vec *window = gx + (w.top * columns + w.left) * channels;
      if (writes && p->kernel[1] == 2 && is_square(&w, 2))
        spread(s, gy, y, argmax, window, columns, 0, 2, 0, 2, 2, 1);
      else
        spread(s, gy, y, argmax, window, columns, w.h0, w.h1, w.w0, w.w1, p->kernel[1], writes);
    }
}

/* y = scale * x + shift of each channel, plus `more`, and the activation; each of them or none. */
static void finish(const struct shapes *s, const vec *x, const REAL *scale, const REAL *shift, const vec *more,
                   vec *y, int activates) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  for (ptrdiff_t p = 0; p < pixels; p++, x += channels, y += channels) {
    for (ptrdiff_t c = 0; c < channels; c++) {
      vec value = scale ? x[c] * all(scale[c]) + all(shift[c]) : x[c];
      if (more) value += more[c];
      if (activates) value = sloped((mask)(value <= 0), value, (REAL)s->slope);
      y[c] = value;
    }
    if (more) more += channels;
  }
}

/* Adds a block's images to each channel's count, mean and sum of squared deviations: statistics [2][outputs]. */
static void add_statistics(const struct shapes *s, const vec *x, mask places, double before, double *mean, double *squares,
                           vec *partial) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  double here = 0;
  for (int i = 0; i < V; i++) here += places[i] ? pixels : 0;
  for (ptrdiff_t c = 0; c < channels; c++) partial[c] = (vec){0};
  for (ptrdiff_t p = 0; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) partial[c] += x[p * channels + c];
  vec *deviation = partial + channels;
  for (ptrdiff_t c = 0; c < channels; c++) {
    partial[c] = all((REAL)(sum_of((vec)((mask)partial[c] & places)) / here));
    deviation[c] = (vec){0};
  }
  for (ptrdiff_t p = 0; p < pixels; p++)
    for (ptrdiff_t c = 0; c < channels; c++) {
      const vec d = x[p * channels + c] - partial[c];
      deviation[c] += d * d;
    }
  for (ptrdiff_t c = 0; c < channels; c++) {
    const double own = partial[c][0], apart = own - mean[c], share = here / (before + here);
    squares[c] += sum_of((vec)((mask)deviation[c] & places)) + apart * apart * before * share;
    mean[c] += apart * share;
  }
}

/* Scale and shift of each channel: channel [2][outputs]. */
static void affine_of(const struct shapes *s, const REAL *mean, const REAL *scale, const struct op_args *a,
                      REAL *channel) {
  const REAL *weight = s->affine ? a->params[2 * s->convolves] : 0, *bias = s->affine ? a->params[2 * s->convolves + 1] : 0;
  for (ptrdiff_t c = 0; c < s->outputs; c++) {
    const REAL own = scale[c] * (weight ? weight[c] : 1);
    channel[c] = own;
    channel[s->outputs + c] = (bias ? bias[c] : 0) - mean[c] * own;
  }
}

/* `multiply` of a block of so many pixels, rounded to bfloat16 first where that is multiplied. */
static void multiply_block(const struct shapes *s, const struct product *p, const vec *map, const struct workspace *w, vec *to,
                           ptrdiff_t pixels, ptrdiff_t inputs, ptrdiff_t outputs, int adds) {
  if (p->narrows) {
    vec *word = w->words;
    for (ptrdiff_t i = 0; i < pixels * s->groups; i++, map += inputs)
      for (ptrdiff_t c = 0; c < inputs; c += 2) *word++ = words(map[c], c + 1 < inputs ? map[c + 1] : (vec){0});
    map = w->words;
  }
  multiply(p, map, w->weights, w->bias, to, s->groups, words_of(p, inputs), outputs, taps(s), adds);
}

/* The convolution of a block, and the pooling right after it; `to` is where the result may go. */
static const vec *enter(const struct shapes *s, const struct workspace *w, const vec *x, vec *to, uint8_t *argmax) {
  const int pools = s->pool[BEFORE].is;
  const vec *maps = x;
  if (s->convolves) {
    vec *own = pools ? w->convolved : to;
    multiply_block(s, &s->sums, x, w, own, s->height * s->width, s->channels / s->groups, s->outputs / s->groups, 0);
    maps = own;
  }
  if (!pools) return maps;
  max_pool(&s->pool[BEFORE], maps, to, argmax, s->rows, s->columns, s->outputs);
  return to;
}

/* What comes after the maps before batch norm, for a block. */
static void leave(const struct shapes *s, const vec *maps, const REAL *channel, const vec *more, vec *y, uint8_t *argmax,
                  vec *room) {
  const REAL *scale = s->normalizes ? channel : 0, *shift = channel + s->outputs;
  if (!s->pool[AFTER].is) {
    if (scale || more || s->activates || maps != y) finish(s, maps, scale, shift, more, y, (int)s->activates);
    return;
  }
  if (scale || more) {
    finish(s, maps, scale, shift, more, room, 0);
    maps = room;
  }
  const struct pool *p = &s->pool[AFTER];
  const ptrdiff_t rows = s->pool[BEFORE].is ? s->pool[BEFORE].rows : s->rows;
  max_pool(p, maps, y, argmax, rows, middle_pixels(s) / rows, s->outputs);
  if (!s->activates) return;
  for (ptrdiff_t i = 0; i < result(s); i++) /* what grows with its argument may come after the maximum */
    y[i] = sloped((mask)(y[i] <= 0), y[i], (REAL)s->slope);
}

static void start(const struct shapes *s, const struct op_args *a, struct workspace *w) {
  lay_out_workspace(s, a->workspace, w);
  if (s->convolves) pack(s, &s->sums, a->params[0], s->has_bias ? a->params[1] : 0, w->weights, w->bias, 0);
}

/* Each channel's statistics of the whole batch, as `saved` keeps them; running ones move. */
static void close_statistics(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                             const struct saved *saved) {
  const double *mean = w->statistics, *squares = mean + s->outputs, count = (double)a->images * middle_pixels(s);
  REAL *running_mean = a->buffers[0], *running_var = a->buffers[1];
  for (ptrdiff_t c = 0; c < s->outputs; c++) {
    saved->mean[c] = (REAL)mean[c];
    saved->scale[c] = (REAL)(1 / sqrt(squares[c] / count + s->eps));
    running_mean[c] = (REAL)(s->momentum * mean[c] + (1 - s->momentum) * running_mean[c]);
    running_var[c] = (REAL)(s->momentum * (squares[c] / (count - 1)) + (1 - s->momentum) * running_var[c]);
  }
}

static const vec *summand(const struct shapes *s, const struct op_args *a, ptrdiff_t block) {
  return s->adds ? (const vec *)a->x[1] + block * middle(s) : 0;
}

static uint8_t *indices(uint8_t *argmax, ptrdiff_t block, ptrdiff_t numbers) {
  return argmax ? argmax + block * numbers * V : 0;
}

/* In evaluation each block goes through all stages; in training without batch norm too. */
static void run_through(const struct shapes *s, const struct op_args *a, struct workspace *w, const struct saved *saved) {
  if (s->normalizes) {
    const REAL *var = a->buffers[1];
    REAL *scale = w->channel + 2 * s->outputs;
    for (ptrdiff_t c = 0; c < s->outputs; c++) scale[c] = (REAL)(1 / sqrt((double)var[c] + s->eps));
    affine_of(s, a->buffers[0], scale, a, w->channel);
  }
  for (ptrdiff_t b = 0; b < CEIL_DIV(a->images, V); b++) {
    vec *y = (vec *)a->y + b * result(s), *to = s->pool[AFTER].is || s->adds ? w->middle : y;
    const vec *maps = enter(s, w, (const vec *)a->x[0] + b * entered(s), to, indices(saved->argmax[BEFORE], b, middle(s)));
    leave(s, maps, w->channel, summand(s, a, b), y, indices(saved->argmax[AFTER], b, result(s)), w->middle);
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
    const vec *maps = enter(s, &w, (const vec *)a->x[0] + b * entered(s), to, indices(saved.argmax[BEFORE], b, middle(s)));
    if (maps != to) memcpy(to, maps, sizeof(vec) * middle(s));
    add_statistics(s, to, present(a->images, b), (double)b * V * middle_pixels(s), w.statistics, w.statistics + s->outputs,
                   w.partial);
  }
  close_statistics(s, a, &w, &saved);
  affine_of(s, saved.mean, saved.scale, a, w.channel);
  for (ptrdiff_t b = 0; b < blocks; b++)
    leave(s, saved.before + b * middle(s), w.channel, summand(s, a, b), (vec *)a->y + b * result(s),
          indices(saved.argmax[AFTER], b, result(s)), w.middle);
}

/* Adds a window's gradients, and those by the deviations from the mean of the values that they belong to. */
INLINE void add_window_sums(const struct shapes *s, const vec *restrict gy, const vec *restrict y,
                            const uint8_t *restrict argmax, const vec *restrict window, ptrdiff_t columns,
                            const ptrdiff_t h0, const ptrdiff_t h1, const ptrdiff_t w0, const ptrdiff_t w1,
                            const ptrdiff_t side, const REAL *restrict mean, vec *restrict first, vec *restrict second) {
  const ptrdiff_t channels = s->outputs;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const vec gradient = gated(s, gy[c], y ? y + c : 0);
    vec value = {0};
    if (argmax) {
      const mask index = index_at(argmax + c * V);
      for (ptrdiff_t h = h0; h < h1; h++)
        for (ptrdiff_t w = w0; w < w1; w++)
          value = where(index == (word)(h * side + w), window[(h * columns + w) * channels + c], value);
    } else {
      value = window[c];
    }
    first[c] += gradient;
    second[c] += gradient * (value - all(mean[c]));
  }
}

/* Adds a block's share of each channel's sums of gradients, and of gradients by deviations from the mean. */
static void add_gradient_sums(const struct shapes *s, const vec *gy, const vec *y, const vec *before, const uint8_t *argmax,
                              const struct workspace *w, const REAL *mean) {
  const struct pool *p = &s->pool[AFTER];
  const ptrdiff_t channels = s->outputs, pixels = result(s) / channels;
  const ptrdiff_t columns = s->pool[BEFORE].is ? s->pool[BEFORE].columns : s->columns;
  vec *first = w->partial, *second = first + channels;
  for (ptrdiff_t c = 0; c < 2 * channels; c++) first[c] = (vec){0};
  for (ptrdiff_t q = 0; q < pixels; q++, gy += channels, y = y ? y + channels : 0) {
    if (!p->is) {
      add_window_sums(s, gy, y, 0, before + q * channels, columns, 0, 1, 0, 1, 1, mean, first, second);
      continue;
    }
    const struct window v = window_of(p, q / p->columns, q % p->columns, middle_pixels(s) / columns, columns);
    const vec *window = before + (v.top * columns + v.left) * channels;
    const uint8_t *own = argmax + q * channels * V;
    if (p->kernel[1] == 2 && is_square(&v, 2))
      add_window_sums(s, gy, y, own, window, columns, 0, 2, 0, 2, 2, mean, first, second);
    else
      add_window_sums(s, gy, y, own, window, columns, v.h0, v.h1, v.w0, v.w1, p->kernel[1], mean, first, second);
  }
  for (ptrdiff_t c = 0; c < channels; c++) {
    w->statistics[c] += sum_of(first[c]);
    w->statistics[channels + c] += sum_of(second[c]);
  }
}

/* The gradient of the maps before batch norm, in place: (g - mean of g - deviation * its share) * scale. */
static void normalize_gradient(const struct shapes *s, vec *gradient, const vec *before, const REAL *mean, const REAL *channel,
                               mask places) {
  const ptrdiff_t pixels = middle_pixels(s), channels = s->outputs;
  const REAL *level = channel, *share = level + channels, *scale = share + channels;
  for (ptrdiff_t p = 0; p < pixels; p++, gradient += channels, before += channels)
    for (ptrdiff_t c = 0; c < channels; c++) {
      const vec deviation = before[c] - all(mean[c]);
      const vec value = (gradient[c] - all(level[c]) - deviation * all(share[c])) * all(scale[c]);
      gradient[c] = (vec)((mask)value & places);
    }
}

/* Batch norm's own gradients, and what `normalize_gradient` needs of each channel. */
static void norm_gradients(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                           const struct saved *saved, ptrdiff_t blocks) {
  const ptrdiff_t channels = s->outputs;
  const double count = (double)a->images * middle_pixels(s);
  const int gates = (int)s->activates;
  memset(w->statistics, 0, sizeof(double) * 2 * channels);
  for (ptrdiff_t b = 0; b < blocks; b++)
    add_gradient_sums(s, (const vec *)a->gy + b * result(s), gates ? (const vec *)a->y + b * result(s) : 0,
                      saved->before + b * middle(s), saved->argmax[AFTER] + b * result(s) * V, w, saved->mean);
  const ptrdiff_t at = 2 * s->convolves;
  const REAL *weight = s->affine ? a->params[at] : 0;
  REAL *level = w->channel, *share = level + channels, *scale = share + channels;
  for (ptrdiff_t c = 0; c < channels; c++) {
    const double invstd = saved->scale[c], first = w->statistics[c], second = w->statistics[channels + c];
    level[c] = (REAL)(first / count);
    share[c] = (REAL)(second * invstd * invstd / count);
    scale[c] = (REAL)invstd * (weight ? weight[c] : 1);
    if (s->affine) ((REAL *)a->grads[at])[c] = (REAL)(second * invstd), ((REAL *)a->grads[at + 1])[c] = (REAL)first;
  }
}

/* A chunk of the gradients for `weight_gradients`: [tiles of outputs][rows][columns][outputs of a tile]. */
static void pack_gradients(const struct shapes *s, const vec *gradient, vec *to, ptrdiff_t rows, ptrdiff_t outer) {
  const ptrdiff_t n = s->gradient_channels, out = s->outputs / s->groups, each = s->narrows ? 2 : 1;
  for (ptrdiff_t o = 0; o < outer * n; o += n)
    for (ptrdiff_t r = 0; r < rows; r++)
      for (ptrdiff_t c = 0; c < s->columns; c += each, to += n) {
        const vec *from = gradient + (r * s->columns + c) * s->outputs + o;
        const ptrdiff_t there = MIN(n, out - o);
        if (!s->narrows)
          for (ptrdiff_t j = 0; j < there; j++) to[j] = from[j];
        else if (c + 1 < s->columns)
          for (ptrdiff_t j = 0; j < there; j++) to[j] = words(from[j], from[j + s->outputs]);
        else
          for (ptrdiff_t j = 0; j < there; j++) to[j] = words(from[j], (vec){0});
        for (ptrdiff_t j = there; j < n; j++) to[j] = (vec){0};
      }
}

/* Some channels of the rows of the input that a chunk reads: [rows][columns][count], with the padding's zeros.  A word
 * has a column and the one that the next column of the result reads in its place. */
static void pack_map(const struct shapes *s, const vec *x, vec *to, ptrdiff_t top, ptrdiff_t rows, ptrdiff_t columns,
                     ptrdiff_t first, ptrdiff_t count, ptrdiff_t most) {
  for (ptrdiff_t r = top; r < top + rows; r++)
    for (ptrdiff_t c = -s->padding[1]; c < columns - s->padding[1]; c++, to += count) {
      const int inside = r >= 0 && r < s->height && c >= 0 && c < s->width;
      const vec *from = x + (r * s->width + c) * s->channels + first;
      const ptrdiff_t there = inside ? MIN(count, most) : 0;
      for (ptrdiff_t i = 0; i < there; i++) to[i] = from[i];
      for (ptrdiff_t i = there; i < count; i++) to[i] = (vec){0};
      if (!s->narrows) continue;
      const ptrdiff_t next = c + s->step[1];
      const int follows = r >= 0 && r < s->height && next >= 0 && next < s->width;
      for (ptrdiff_t i = 0; i < count; i++)
        to[i] = words(to[i], follows && i < most ? from[s->step[1] * s->channels + i] : (vec){0});
    }
}

/* The first of `count` outputs, and the one behind the last, for which from + output * step is inside. */
static void bounds(ptrdiff_t from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t inside, ptrdiff_t *first, ptrdiff_t *end) {
  *first = from < 0 ? CEIL_DIV(-from, step) : 0;
  *end = MIN(count, inside > from ? CEIL_DIV(inside - from, step) : 0);
}

/* Adds some blocks' share of the gradients of the weights to w->sums. */
static void weight_gradients(const struct shapes *s, const vec *x, const vec *gradient, ptrdiff_t blocks,
                             const struct workspace *w) {
  const gradient_function add = gradient_of(s->gradient_channels, (int)s->narrows);
  const ptrdiff_t each = s->narrows ? 2 : 1, across = CEIL_DIV(s->columns, each); /* words of a row */
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, n = s->gradient_channels;
  const ptrdiff_t of_tile = sums_of_tile(s);
  const struct tiling t = tiling_of(s);
  const ptrdiff_t columns = (s->columns - 1) * s->step[1] + (s->kernel[1] - 1) * s->dilation[1] + 1;
  const ptrdiff_t wide = s->merged ? own : t.inputs;
  for (ptrdiff_t g = 0; g < s->groups; g++)
    for (ptrdiff_t h = 0; h < s->rows; h += s->chunk) {
      const ptrdiff_t chunk = MIN(s->chunk, s->rows - h), top = h * s->step[0] - s->padding[0];
      const ptrdiff_t rows = (chunk - 1) * s->step[0] + (s->kernel[0] - 1) * s->dilation[0] + 1;
      /* more blocks than one are taken only where a chunk is the whole map: their pixels then follow each other */
      pack_gradients(s, gradient + h * s->columns * s->outputs + g * out, w->gradients, blocks * chunk, t.outer);
      for (ptrdiff_t i = 0; i < t.middle; i++) {
        for (ptrdiff_t b = 0; b < blocks; b++)
          pack_map(s, x + b * entered(s), w->map + b * rows * columns * wide, top, rows, columns, g * own + i * wide, wide,
                   own - i * wide);
        /* all taps of a tile of outputs in turn: what they read stays in the first cache */
        for (ptrdiff_t o = 0; o < t.outer; o++) {
          vec *sums = w->sums + ((g * t.outer + o) * t.middle + i) * s->kernel[0] * t.inner * of_tile;
          for (ptrdiff_t r = 0; r < s->kernel[0]; r++)
            for (ptrdiff_t j = 0; j < t.inner; j++) {
              ptrdiff_t h0, h1, w0 = 0, w1 = across;
              bounds(top + r * s->dilation[0], s->step[0], chunk, s->height, &h0, &h1);
              const ptrdiff_t left = s->merged ? 0 : j * s->dilation[1];
              if (!s->merged && !s->narrows) /* words of two columns are taken with the padding's zeros */
                bounds(left - s->padding[1], s->step[1], s->columns, s->width, &w0, &w1);
              if (h0 >= h1 || w0 >= w1) continue;
              const vec *map = w->map + ((h0 * s->step[0] + r * s->dilation[0]) * columns + w0 * s->step[1] + left) * wide +
                               (s->merged ? j * t.inputs : 0);
              const struct steps by = {rows * columns * wide, s->step[0] * columns * wide, each * s->step[1] * wide,
                                       chunk * across * n, across * n};
              const vec *own_gradients = w->gradients + (o * blocks * chunk * across + h0 * across + w0) * n;
              add(map, own_gradients, blocks, h1 - h0, w1 - w0, &by, sums + (r * t.inner + j) * of_tile);
            }
        }
      }
    }
}

/* Writes the gradients of the weights as torch has them. */
static void unpack(const struct shapes *s, const struct workspace *w, REAL *to) {
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, n = s->gradient_channels;
  const ptrdiff_t whole = s->whole[0] * s->whole[1], of_tile = sums_of_tile(s) * V;
  const struct tiling t = tiling_of(s);
  const REAL *from = (const REAL *)w->sums;
  if (whole != taps(s)) memset(to, 0, sizeof(REAL) * s->outputs * own * whole);
  to += s->first[0] * s->whole[1] + s->first[1];
  for (ptrdiff_t o = 0; o < s->groups * t.outer; o++)
    for (ptrdiff_t m = 0; m < t.middle; m++, from += s->kernel[0] * t.inner * of_tile)
      for (ptrdiff_t j = 0; j < MIN(n, out - o % t.outer * n); j++)
        for (ptrdiff_t i = 0; i < (s->merged ? own : MIN(t.inputs, own - m * t.inputs)); i++) {
          const ptrdiff_t output = o / t.outer * out + o % t.outer * n + j;
          REAL *number = to + (output * own + m * t.inputs + i) * whole;
          for (ptrdiff_t c = 0; c < s->kernel[1]; c++) {
            const ptrdiff_t place = c * own + i; /* in a row's tiles, if taps and inputs are summed together */
            const REAL *sum = s->merged ? from + place / t.inputs * of_tile + place % t.inputs : from + c * of_tile + i;
            sum += j * t.inputs;
            for (ptrdiff_t r = 0; r < s->kernel[0]; r++) number[r * s->whole[1] + c] = sum[r * t.inner * of_tile];
          }
        }
}

/* Writes the gradient of the convolution's result in one block (or of the input, where there is no convolution). */
static void gradient_of_block(const struct shapes *s, const struct op_args *a, const struct workspace *w,
                              const struct saved *saved, ptrdiff_t b, vec *to_convolution) {
  const vec *gy = (const vec *)a->gy + b * result(s);
  const vec *y = s->activates ? (const vec *)a->y + b * result(s) : 0;
  const int pools = s->pool[BEFORE].is;
  vec *gradient = pools ? w->middle : to_convolution;
  if (s->pool[AFTER].is) {
    const ptrdiff_t columns = pools ? s->pool[BEFORE].columns : s->columns;
    max_pool_gradient(s, &s->pool[AFTER], gy, y, saved->argmax[AFTER] + b * result(s) * V, gradient,
                      middle_pixels(s) / columns, columns);
  } else {
    for (ptrdiff_t i = 0; i < middle(s); i++) gradient[i] = gated(s, gy[i], y ? y + i : 0);
  }
  if (s->adds && a->gx[1]) {
    vec *to = (vec *)a->gx[1] + b * middle(s);
    for (ptrdiff_t i = 0; i < middle(s); i++) to[i] = a->adds[1] ? to[i] + gradient[i] : gradient[i];
  }
  if (s->normalizes)
    normalize_gradient(s, gradient, saved->before + b * middle(s), saved->mean, w->channel, present(a->images, b));
  if (pools)
    max_pool_gradient(s, &s->pool[BEFORE], gradient, 0, saved->argmax[BEFORE] + b * middle(s) * V, to_convolution, s->rows,
                      s->columns);
}

static void add_bias_gradient(const struct shapes *s, const vec *gradient, const struct workspace *w, double *sums) {
  for (ptrdiff_t c = 0; c < s->outputs; c++) w->partial[c] = (vec){0};
  for (ptrdiff_t p = 0; p < s->rows * s->columns; p++)
    for (ptrdiff_t c = 0; c < s->outputs; c++) w->partial[c] += gradient[p * s->outputs + c];
  for (ptrdiff_t c = 0; c < s->outputs; c++) sums[c] += sum_of(w->partial[c]);
}

void backward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  const ptrdiff_t blocks = CEIL_DIV(a->images, V), own = s->channels / s->groups, out = s->outputs / s->groups;
  struct workspace w;
  struct saved saved;
  lay_out_workspace(s, a->workspace, &w);
  lay_out_saved(s, a->saved, blocks, &saved);
  if (s->normalizes) norm_gradients(s, a, &w, &saved, blocks);
  double *bias = w.statistics + 2 * s->outputs;
  if (s->convolves) {
    memset(w.sums, 0, w.sums_bytes);
    memset(bias, 0, sizeof(double) * s->outputs);
    if (a->gx[0]) pack(s, &s->data, a->params[0], 0, w.weights, w.bias, 1);
  }
  for (ptrdiff_t b = 0; b < blocks; b++) {
    const ptrdiff_t place = b % s->span;
    vec *gradient = w.gradient + place * convolved(s), *gx = a->gx[0] ? (vec *)a->gx[0] + b * entered(s) : 0;
    gradient_of_block(s, a, &w, &saved, b, gradient);
    if (s->convolves) {
      if (s->has_bias) add_bias_gradient(s, gradient, &w, bias);
      if (gx) multiply_block(s, &s->data, gradient, &w, gx, s->rows * s->columns, out, own, a->adds[0]);
      if (place + 1 == s->span || b + 1 == blocks)
        weight_gradients(s, (const vec *)a->x[0] + (b - place) * entered(s), w.gradient, place + 1, &w);
    } else if (gx) {
      for (ptrdiff_t i = 0; i < entered(s); i++) gx[i] = a->adds[0] ? gx[i] + gradient[i] : gradient[i];
    }
  }
  if (!s->convolves) return;
  unpack(s, &w, a->grads[0]);
  for (ptrdiff_t c = 0; s->has_bias && c < s->outputs; c++) ((REAL *)a->grads[1])[c] = (REAL)bias[c];
}
