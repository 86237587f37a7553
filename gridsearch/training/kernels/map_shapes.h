/* What an operation on maps knows of its shapes, and where it keeps what; see map_stages.c. */

#pragma once

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
  int64_t span;         /* blocks at a time, where maps are small */
  int64_t whole[2], first[2]; /* kernel as the weights have it, and its first tap that is ever used */
  int64_t gradient_channels, narrows; /* outputs at a time there; whether bfloat16 is multiplied */
  int64_t by_channel;   /* these are summed in vectors of channels, see channel_gradients.h */
  int64_t patches, point_inputs; /* at a time there in winograd.h; 0 where that is not used */
  struct product sums, data;
  struct pool pool[2];
  int64_t normalizes, affine;
  double eps, momentum; /* a negative momentum: means of all batches, whose count is buffers[2] */
  int64_t adds, activates;
  double slope, most; /* of the activation: its slope below zero, and what it does not exceed, or 0 */
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
static ptrdiff_t words_of(const struct product *p, ptrdiff_t channels) { return p->narrows ? CEIL_DIV(channels, 2)
                                                                        : channels; }

/* The first of `count` outputs, and the one behind the last, for which from + output * step is inside. */
static void bounds(ptrdiff_t from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t inside, ptrdiff_t *first,
                   ptrdiff_t *end) {
  *first = from < 0 ? CEIL_DIV(-from, step) : 0;
  *end = MIN(count, inside > from ? CEIL_DIV(inside - from, step) : 0);
}

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

/* Memory of a call: maps of as many blocks as are taken at a time, packed weights, and what the gradients of the weights need. */
struct workspace {
  vec *convolved, *middle, *gradient, *words;
  REAL *weights, *bias, *packed, *no_bias; /* packed: before they are transformed in winograd.h; no_bias: zeros */
  vec *map, *gradients, *sums, *points;
  ptrdiff_t sums_bytes;
  double *statistics; /* [4][outputs], or channels where they are more */
  REAL *channel;      /* [4][outputs] */
  vec *partial;       /* [2][outputs], likewise */
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

static int is_depthwise(const struct shapes *s) {
  return s->convolves && s->groups > 1 && s->groups == s->channels && s->outputs == s->channels;
}

/* Tiles of inputs in channel_gradients.h. */
#define CHANNEL_OUTPUTS 6 /* at a time */
#define CHANNEL_VECTORS (SUMS / CHANNEL_OUTPUTS)
static ptrdiff_t channel_tiles(const struct shapes *s) { return CEIL_DIV(s->channels, CHANNEL_VECTORS * V); }

static ptrdiff_t sums_of_tile(const struct shapes *s) {
  return CEIL_DIV(s->gradient_channels * tile_pixels(s->gradient_channels), V);
}

#define SIDE 4          /* of a patch that is written */
#define READ (SIDE + 2) /* of what it reads */
#define POINTS (READ * READ)

/* The patches of a product: the maps that it reads and writes. */
struct patches {
  ptrdiff_t height, width, channels, up, left; /* read; rows and columns of padding before it */
  ptrdiff_t rows, columns, outputs;            /* written */
  ptrdiff_t across, each, count;               /* patches in a row, in a block and in all */
};

static struct patches patches_of(const struct shapes *s, int turned, ptrdiff_t blocks) {
  struct patches g = {.height = s->height, .width = s->width, .channels = s->channels, .up = s->padding[0],
                      .left = s->padding[1], .rows = s->rows, .columns = s->columns, .outputs = s->outputs};
  if (turned)
    g = (struct patches){.height = g.rows, .width = g.columns, .channels = g.outputs, .up = 2 - g.up,
                         .left = 2 - g.left, .rows = g.height, .columns = g.width, .outputs = g.channels};
  g.across = CEIL_DIV(g.columns, SIDE);
  g.each = g.across * CEIL_DIV(g.rows, SIDE);
  g.count = blocks * g.each;
  return g;
}

/* Vectors from a point to the next: not a power of two, or all points would share few places in the first cache. */
static ptrdiff_t point_step(ptrdiff_t numbers) { return numbers + 3; }

/* Numbers from a point of the weights to the next. */
static ptrdiff_t weights_step(const struct product *p, ptrdiff_t channels, ptrdiff_t outputs) {
  return packed_outputs(p, outputs) * channels + V;
}

#define BROAD 2 /* vectors of outputs at a time */
#if SUMS == 24
#define MOST_INPUTS 13
#else
#define MOST_INPUTS 6
#endif

/* How the sums for the gradients lie: [points][outer][middle][inputs of a tile][BROAD]. */
struct point_tiling {
  ptrdiff_t outer, middle, rows; /* tiles of outputs and of inputs; inputs of all those */
  ptrdiff_t step;                /* vectors from a point to the next */
};

static struct point_tiling point_tiling_of(const struct shapes *s) {
  const ptrdiff_t outer = CEIL_DIV(s->outputs, V * BROAD), middle = CEIL_DIV(s->channels, s->point_inputs);
  const ptrdiff_t rows = middle * s->point_inputs;
  return (struct point_tiling){outer, middle, rows, point_step(outer * rows * BROAD)};
}

/* Memory of a product by patches, in vectors: the points of what is read and of what is written. */
static ptrdiff_t product_points(const struct shapes *s, const struct product *p) {
  const ptrdiff_t read = p == &s->data ? s->outputs : s->channels, written = s->channels + s->outputs - read;
  const ptrdiff_t step = point_step(p->patches * words_of(p, read)) + point_step(p->patches * written);
  return p->patches ? POINTS * step : 0;
}

/* Vectors of a patch's channels at a point, for the gradients of the weights. */
static ptrdiff_t point_channels(const struct shapes *s) { return s->narrows ? CEIL_DIV(s->channels, 2) : s->channels; }

/* Likewise of the gradients of the weights; a tile of inputs reaches behind the last one. */
static ptrdiff_t gradient_points(const struct shapes *s) {
  if (!s->patches) return 0;
  const ptrdiff_t gradients = point_tiling_of(s).outer * s->patches * V / (s->narrows ? 2 : 1) * BROAD;
  return POINTS * (point_step(s->patches * point_channels(s)) + point_step(gradients)) + MOST_INPUTS;
}

/* Memory of transformed weights, in numbers: of a tile before, and of all afterwards. */
static ptrdiff_t tile_weights(const struct product *p, ptrdiff_t inputs) {
  return p->patches ? 9 * (inputs + 1) * p->channels + V : 0;
}
static ptrdiff_t point_weights(const struct product *p, ptrdiff_t inputs, ptrdiff_t outputs) {
  return p->patches ? POINTS * weights_step(p, words_of(p, inputs), outputs) : 0;
}

static char *take(char **at, ptrdiff_t bytes) {
  char *own = *at;
  *at += CEIL_DIV(bytes, BYTES) * BYTES;
  return own;
}

/* Words of the maps that a product reads at a time; an odd channel of a group has one of its own. */
static ptrdiff_t words_at_a_time(const struct shapes *s, const struct product *p, ptrdiff_t numbers, ptrdiff_t pixels) {
  return p->narrows ? MIN(s->span, p->together) * (numbers + pixels * s->groups) : 0;
}

static ptrdiff_t lay_out_workspace(const struct shapes *s, char *at, struct workspace *w) {
  const char *start = at;
  const ptrdiff_t most = MAX(s->channels, s->outputs);
  w->convolved = (vec *)take(&at, sizeof(vec) * s->span * convolved(s));
  w->middle = (vec *)take(&at, sizeof(vec) * s->span * middle(s));
  w->gradient = (vec *)take(&at, sizeof(vec) * s->span * convolved(s));
  w->words = (vec *)take(&at, sizeof(vec) * MAX(words_at_a_time(s, &s->sums, entered(s), s->height * s->width),
                                                words_at_a_time(s, &s->data, convolved(s), s->rows * s->columns)));
  w->statistics = (double *)take(&at, sizeof(double) * 4 * most);
  w->channel = (REAL *)take(&at, sizeof(REAL) * 4 * s->outputs);
  w->partial = (vec *)take(&at, sizeof(vec) * 2 * most);
  if (s->convolves) {
    const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups;
    const ptrdiff_t forth = packed_outputs(&s->sums, out) * own, back = packed_outputs(&s->data, own) * out;
    const ptrdiff_t biases = s->groups * (packed_outputs(&s->sums, out) + packed_outputs(&s->data, own));
    const ptrdiff_t weights = s->groups * taps(s) * MAX(forth, back);
    const ptrdiff_t filtered = MAX(point_weights(&s->sums, own, out), point_weights(&s->data, out, own));
    w->weights = (REAL *)take(&at, sizeof(REAL) * MAX(weights, filtered));
    w->packed = (REAL *)take(&at, sizeof(REAL) * MAX(tile_weights(&s->sums, own), tile_weights(&s->data, out)));
    w->bias = (REAL *)take(&at, sizeof(REAL) * biases);
    w->no_bias = (REAL *)take(&at, sizeof(REAL) * biases);
    const ptrdiff_t points = MAX(product_points(s, &s->sums), product_points(s, &s->data));
    w->points = (vec *)take(&at, sizeof(vec) * MAX(points, gradient_points(s)));
    const struct tiling t = tiling_of(s);
    const ptrdiff_t rows = (s->chunk - 1) * s->step[0] + (s->kernel[0] - 1) * s->dilation[0] + 1;
    const ptrdiff_t columns = (s->columns - 1) * s->step[1] + (s->kernel[1] - 1) * s->dilation[1] + 1;
    const ptrdiff_t wide = s->merged ? own : t.inputs, read = MIN(rows, s->height) * s->width;
    const ptrdiff_t turned = s->by_channel ? read * channel_tiles(s) * CHANNEL_VECTORS * V : 0;
    w->map = (vec *)take(&at, sizeof(vec) * (s->span * MAX(turned, rows * columns * wide) + MOST_PIXELS));
    const ptrdiff_t packed = MAX(t.outer * s->gradient_channels, CEIL_DIV(out, CHANNEL_OUTPUTS) * CHANNEL_OUTPUTS);
    w->gradients = (vec *)take(&at, sizeof(vec) * s->span * s->chunk * s->columns * packed);
    w->sums_bytes = sizeof(vec) * (is_depthwise(s) ? taps(s) * s->channels
                                   : s->by_channel ? taps(s) * s->outputs * channel_tiles(s) * CHANNEL_VECTORS
                                   : s->patches ? POINTS * point_tiling_of(s).step
                                   : s->groups * t.outer * t.middle * s->kernel[0] * t.inner * sums_of_tile(s));
    w->sums = (vec *)take(&at, w->sums_bytes);
  }
  return at - start;
}

int64_t workspace_bytes(const struct shapes *s) {
  struct workspace w;
  return lay_out_workspace(s, 0, &w) + BYTES;
}
