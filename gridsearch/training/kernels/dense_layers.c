/* Dense layers that follow each other, each with ReLU after it or not, for all lanes: forwards and backwards.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.
 *
 * The batches of a small network's dense layers are small: a matrix product costs less for its arithmetic than for
 * the call, the handling of shapes, and writing what the next one reads.  Here a lane goes through all layers at
 * once, with its intermediate results in its core's own cache.  Products run over vectors of a weight's row; where a
 * row does not end with a whole vector, the last one overlaps the one before it, so that nothing beyond a row is
 * ever read: what lies there may be another lane's, and NaN.  Sums have a fixed order: the same bytes each time.
 */

#include "row_products.h"

#if BYTES == 64
enum { DOT_X = 4, DOT_W = 4 }; /* sums at a time, in vectors: see `forward_layer` */
#else
enum { DOT_X = 2, DOT_W = 4 };
#endif

/* Images and inputs of a forward pass at a time: so many numbers stay in a core's own cache.  A sum's order depends on
 * the number of inputs alone. */
enum { IMAGES = 64, INPUTS = 8192 / sizeof(REAL) };

/* The sums of neighbours: first those of a, then those of b. */
#if V == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif V == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#elif V == 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#else
#define EVEN 0, 2
#define ODD 1, 3
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif
#define NEIGHBOURS(a, b) (SHUFFLE(a, b, EVEN) + SHUFFLE(a, b, ODD))

/* A layer of all lanes; a lane's weights [outputs][inputs] lie `*_step` numbers behind those of the lane before. */
struct layer {
  ptrdiff_t inputs, outputs, relu;
  const REAL *w, *b;
  ptrdiff_t w_step, b_step;
  REAL *gw, *gb; /* where to write the gradients */
  ptrdiff_t gw_step, gb_step;
};

/* What goes into the first layer: features [lanes][images][inputs] with the strides [2] of lanes and images, or maps
 * [images][lanes * channels][height][width] with the strides [4] of images, channels, rows and columns. */
struct source {
  REAL *x;
  const ptrdiff_t *strides;
  ptrdiff_t channels, height, width; /* of maps; no channels for features */
};

/* Copies a lane's features [images][channels * height * width] out of maps, or back into them. */
INLINE void copy_maps(const struct source *s, REAL *features, ptrdiff_t lane, ptrdiff_t images, const int back) {
  const ptrdiff_t *by = s->strides;
  for (ptrdiff_t b = 0; b < images; b++)
    for (ptrdiff_t h = 0; h < s->height; h++)
      for (ptrdiff_t w = 0; w < s->width; w++) {
        REAL *map = s->x + b * by[0] + lane * s->channels * by[1] + h * by[2] + w * by[3];
        REAL *own = features + ((b * s->channels) * s->height + h) * s->width + w;
        for (ptrdiff_t c = 0; c < s->channels; c++)
          if (back)
            map[c * by[1]] = own[c * s->height * s->width];
          else
            own[c * s->height * s->width] = map[c * by[1]];
      }
}

static mask tail_of(ptrdiff_t count) { /* the last numbers of a vector that ends where a row of so many does */
  mask tail;
  for (ptrdiff_t i = 0; i < V; i++) tail[i] = i >= V - count % V ? -1 : 0;
  return tail;
}

/* y [images][outputs] = x [images][inputs] w' + b, and ReLU: sums over the vectors of a row, which are then added up
 * within.  Of the inputs only those from `begin` to `end`, a whole number of vectors or the last; those before are in y
 * already. */
static void forward_block(const struct layer *l, const REAL *w, const REAL *b, const REAL *x, ptrdiff_t x_step, REAL *y,
                          ptrdiff_t images, ptrdiff_t begin, ptrdiff_t end) {
  const mask tail = tail_of(l->inputs);
  const int first = begin == 0, last = end == l->inputs;
  for (ptrdiff_t g = 0; g < l->outputs; g += DOT_W) {
    const ptrdiff_t here = MIN(DOT_W, l->outputs - g);
    const REAL *row[DOT_W];
    REAL before[DOT_X * DOT_W];
    UNROLL for (int j = 0; j < DOT_W; j++) {
      const ptrdiff_t own = MIN(g + j, l->outputs - 1);
      row[j] = w + own * l->inputs;
      UNROLL for (int i = 0; i < DOT_X; i++) before[i * DOT_W + j] = b ? b[own] : 0;
    }
    for (ptrdiff_t n = 0; n < images; n += DOT_X) {
      const REAL *image[DOT_X];
      UNROLL for (int i = 0; i < DOT_X; i++) image[i] = x + MIN(n + i, images - 1) * x_step;
      vec sum[DOT_X * DOT_W];
      UNROLL for (int i = 0; i < DOT_X * DOT_W; i++) sum[i] = (vec){0};
      for (ptrdiff_t f = begin; f + V <= end; f += V) {
        vec weight[DOT_W];
        UNROLL for (int j = 0; j < DOT_W; j++) {
          weight[j] = *(const unaligned_vec *)(row[j] + f);
          IN_REGISTER(weight[j]);
        }
        UNROLL for (int i = 0; i < DOT_X; i++) {
          vec number = *(const unaligned_vec *)(image[i] + f);
          IN_REGISTER(number);
          UNROLL for (int j = 0; j < DOT_W; j++) sum[i * DOT_W + j] += number * weight[j];
        }
      }
      if (last && l->inputs % V) {
        const ptrdiff_t f = l->inputs - V;
        UNROLL for (int i = 0; i < DOT_X; i++) {
          const vec number = (vec)((mask) * (const unaligned_vec *)(image[i] + f) & tail);
          UNROLL for (int j = 0; j < DOT_W; j++)
            sum[i * DOT_W + j] += number * (vec)((mask) * (const unaligned_vec *)(row[j] + f) & tail);
        }
      }
      if (!first)
        for (int i = 0; i < DOT_X; i++)
          for (ptrdiff_t j = 0; j < here; j++)
            before[i * DOT_W + j] = y[MIN(n + i, images - 1) * l->outputs + g + j];
      REAL total[DOT_X * DOT_W];
      UNROLL for (int part = 0; part < DOT_X * DOT_W; part += V) {
        vec level[V];
        UNROLL for (int i = 0; i < V; i++) level[i] = sum[part + i];
        UNROLL for (int left = V / 2; left >= 1; left /= 2)
          UNROLL for (int i = 0; i < left; i++) level[i] = NEIGHBOURS(level[2 * i], level[2 * i + 1]);
        const vec value = level[0] + *(const unaligned_vec *)(before + part);
        *(unaligned_vec *)(total + part) = last && l->relu ? (vec)((mask)value & ~(mask)(value <= 0)) : value;
      }
      for (int i = 0; i < DOT_X && n + i < images; i++) {
        REAL *to = y + (n + i) * l->outputs + g;
        if (here == DOT_W)
          memcpy(to, total + i * DOT_W, sizeof(REAL) * DOT_W);
        else
          for (ptrdiff_t j = 0; j < here; j++) to[j] = total[i * DOT_W + j];
      }
    }
  }
}

static void forward_layer(const struct layer *l, const REAL *w, const REAL *b, const REAL *x, ptrdiff_t x_step, REAL *y,
                          ptrdiff_t images) {
  for (ptrdiff_t n = 0; n < images; n += IMAGES)
    for (ptrdiff_t f = 0; f < l->inputs; f += INPUTS)
      forward_block(l, w, b, x + n * x_step, x_step, y + n * l->outputs, MIN(IMAGES, images - n), f,
                    MIN(f + INPUTS, l->inputs));
}

/* Where a lane's inputs of a layer are.  saved: [lanes][images][inputs] of each layer, the first one's for maps
 * alone. */
static REAL *inputs_of(const struct source *s, const struct layer *layers, ptrdiff_t layer, REAL *saved, ptrdiff_t lane,
                       ptrdiff_t lanes, ptrdiff_t images, ptrdiff_t *step) {
  if (layer == 0 && !s->channels) {
    *step = s->strides[1];
    return s->x + lane * s->strides[0];
  }
  for (ptrdiff_t i = s->channels ? 0 : 1; i < layer; i++) saved += lanes * images * layers[i].inputs;
  *step = layers[layer].inputs;
  return saved + lane * images * layers[layer].inputs;
}

/* y [lanes][images][outputs of the last layer]; saved is what `backward` needs. */
void forward(const struct source *s, const struct layer *layers, ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t images,
             REAL *saved, REAL *y) {
  const ptrdiff_t last = layers[count - 1].outputs;
  for (ptrdiff_t k = 0; k < lanes; k++)
    for (ptrdiff_t i = 0; i < count; i++) {
      const struct layer *l = layers + i;
      ptrdiff_t step;
      REAL *x = inputs_of(s, layers, i, saved, k, lanes, images, &step);
      if (i == 0 && s->channels) copy_maps(s, x, k, images, 0);
      ptrdiff_t next;
      REAL *to = i + 1 < count ? inputs_of(s, layers, i + 1, saved, k, lanes, images, &next)
                               : y + k * images * last;
      forward_layer(l, l->w + k * l->w_step, l->b ? l->b + k * l->b_step : 0, x, step, to, images);
    }
}

/* gradient [lanes][images][outputs of the last layer], and y and saved as `forward` left them; gx none, or maps like
 * the source's, or features in one block; workspace [2][images][widest inputs or outputs of a layer]. */
void backward(const struct source *s, const struct layer *layers, ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t images,
              REAL *saved, const REAL *y, const REAL *gradient, const struct source *gx, REAL *workspace,
              ptrdiff_t widest) {
  for (ptrdiff_t k = 0; k < lanes; k++) {
    const struct layer *l = layers + count - 1;
    REAL *own = workspace, *other = workspace + images * widest;
    const ptrdiff_t numbers = images * l->outputs;
    for (ptrdiff_t i = 0; i < numbers; i++)
      own[i] = l->relu && y[k * numbers + i] <= 0 ? 0 : gradient[k * numbers + i];
    for (ptrdiff_t i = count - 1; i >= 0; i--) {
      l = layers + i;
      ptrdiff_t step;
      const REAL *x = inputs_of(s, layers, i, saved, k, lanes, images, &step);
      matmul(own, 1, l->outputs, x, step, images, l->gw + k * l->gw_step, l->inputs, 0, 0, l->outputs, l->inputs);
      if (l->gb) {
        REAL *gb = l->gb + k * l->gb_step;
        for (ptrdiff_t g = 0; g < l->outputs; g++) gb[g] = 0;
        for (ptrdiff_t n = 0; n < images; n++)
          for (ptrdiff_t g = 0; g < l->outputs; g++) gb[g] += own[n * l->outputs + g];
      }
      if (i == 0 && !gx) break;
      const REAL *gate = i > 0 && layers[i - 1].relu ? x : 0;
      REAL *to = i == 0 && !gx->channels ? gx->x + k * gx->strides[0] : other;
      matmul(own, l->outputs, 1, l->w + k * l->w_step, l->inputs, l->outputs, to, l->inputs, 0, gate, images, l->inputs);
      if (i == 0 && gx->channels) copy_maps(gx, to, k, images, 1);
      other = own;
      own = to;
    }
  }
}

/* As an operation of a plan, whose layers are in `constants`; `saved` has the inputs of all layers but the first. */
#include "op.h"

enum { MOST_LAYERS = 8 }; /* as in small_ops.py */

struct chain {
  int64_t count, relus[MOST_LAYERS], sizes[MOST_LAYERS + 1];
};

static ptrdiff_t op_widest(const struct chain *c) {
  ptrdiff_t most = 0;
  for (ptrdiff_t i = 0; i <= c->count; i++) most = MAX(most, c->sizes[i]);
  return most;
}

/* Sizes of saved and of the workspace, in numbers, for so many images. */
ptrdiff_t op_saved(const struct chain *c, ptrdiff_t images) {
  ptrdiff_t sum = 0;
  for (ptrdiff_t i = 1; i < c->count; i++) sum += c->sizes[i];
  return images * sum;
}

ptrdiff_t op_workspace(const struct chain *c, ptrdiff_t images) {
  return MAX(op_saved(c, images), images * (2 * op_widest(c) + c->sizes[0]));
}

static void op_layers(struct layer *layers, const struct op_args *a) {
  const struct chain *c = a->constants;
  for (ptrdiff_t i = 0; i < c->count; i++)
    layers[i] = (struct layer){c->sizes[i], c->sizes[i + 1], c->relus[i], a->params[2 * i], a->params[2 * i + 1], 0, 0,
                               a->grads[2 * i], a->grads[2 * i + 1], 0, 0};
}

static void op_run(const struct op_args *a, REAL *saved) {
  const struct chain *c = a->constants;
  const ptrdiff_t strides[2] = {0, c->sizes[0]};
  const struct source source = {(REAL *)a->x[0], strides, 0, 0, 0};
  struct layer layers[MOST_LAYERS];
  op_layers(layers, a);
  forward(&source, layers, c->count, 1, a->images, saved, a->y);
}

void op_forward(const struct op_args *a) { op_run(a, a->saved); }

void op_infer(const struct op_args *a) { op_run(a, a->workspace); }

void op_backward(const struct op_args *a) {
  const struct chain *c = a->constants;
  const ptrdiff_t strides[2] = {0, c->sizes[0]}, widest = op_widest(c), count = a->images * c->sizes[0];
  const struct source source = {(REAL *)a->x[0], strides, 0, 0, 0};
  REAL *scratch = (REAL *)a->workspace, *apart = scratch + 2 * a->images * widest, *gx = a->gx[0];
  const struct source into = {a->adds[0] ? apart : gx, strides, 0, 0, 0};
  struct layer layers[MOST_LAYERS];
  op_layers(layers, a);
  backward(&source, layers, c->count, 1, a->images, a->saved, a->y, a->gy, gx ? &into : 0, scratch, widest);
  if (gx && a->adds[0])
    for (ptrdiff_t i = 0; i < count; i++) gx[i] += apart[i];
}
