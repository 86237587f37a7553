/* The steps of a lane as one call: images, forward pass, loss, backward pass, optimizer, averages, metrics.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  What the
 * network itself computes are operations compiled for their shapes (op.h); a plan is their list, with memory planned for
 * all of them.  A lane's part of a plan (its weights, recipe, images and sums) is a `struct lane`: the operations' pointers
 * are set to it before its steps.
 */

#include <math.h>

#include "loss.h"
#include "op.h"
#include "random.h"
#include "vectors.h"

enum { FEATURES, CHANNELS_LAST, BATCH_INNER };

struct call {
  void (*function)(const struct op_args *);
  struct op_args *args;
};

/* A pointer of an operation that differs from lane to lane: *place = bases[base] + offset bytes. */
struct relocation {
  void **place;
  ptrdiff_t base, offset;
};

/* Two buffers of which the first is the second's moving average. */
struct averaged {
  REAL *average;
  const REAL *of;
  ptrdiff_t size;
};

struct plan {
  const struct call *forward, *backward, *infer;
  ptrdiff_t forward_count, backward_count, infer_count;
  ptrdiff_t infer_once; /* of the first calls in evaluation, which read no image */
  const struct relocation *relocations;
  ptrdiff_t relocation_count;
  struct op_args *args;
  ptrdiff_t args_count;

  /* the images, in the layout of the operation that reads them, and the logits [images][classes] */
  REAL *images;
  ptrdiff_t layout, channels, height, width;
  const REAL *logits;
  REAL *logits_gradient;
  ptrdiff_t classes;

  ptrdiff_t (*cross_entropy)(const REAL *, const int64_t *, const ptrdiff_t *, const struct loss_recipe *, REAL *,
                             REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t);
  void (*optimizer)(REAL *, REAL *, REAL *, REAL *, ptrdiff_t, ptrdiff_t, void *);
  REAL *gradient; /* [size] of the trained parameters */
  ptrdiff_t size;

  /* the dataset [N][height][width][channels]: bytes, or single-precision numbers */
  const uint8_t *bytes;
  const float *floats;
  const int64_t *labels;
  int64_t *batch_labels; /* [batch] */
  uint8_t *image;        /* holds one image of the dataset */
  struct random *random; /* what dropout draws from; NULL where there is none */
};

/* How an epoch's images are augmented, by their place in its order; NULL for what is not. */
struct augmentation {
  const uint8_t *flips;  /* [N] */
  const int64_t *shifts; /* [N][2]: down, right */
  const int64_t *boxes;  /* [N][4]: top, bottom, left, right */
};

struct lane {
  void *const *bases;
  const REAL *scale, *shift; /* of each channel */
  /* of the epoch */
  const int64_t *order;
  struct augmentation augmentation;
  ptrdiff_t batch, count; /* images of a step, and of the epoch */
  const uint64_t *seeds;  /* of each step's dropout masks */
  double rate;            /* of dropout; negative for the model's own */
  struct loss_recipe loss;
  /* the optimizer */
  REAL *weights, *first, *second;
  void *recipe;        /* of optimizer_step.c, which begins with the learning rate */
  const double *rates; /* of each step */
  ptrdiff_t steps_at;  /* where in the recipe its count of steps is, in bytes */
  /* the averages */
  REAL share; /* of the new weights; 0 for no averages */
  const struct averaged *averages;
  ptrdiff_t average_count;
  int64_t *const *counters; /* of batches that batch norms have seen */
  ptrdiff_t counter_count;
  /* what comes of it */
  double *losses; /* [steps] */
  int64_t hits;
  int64_t diverged; /* it has a loss that is not finite, and takes no more steps */
};

static void bind_lane(const struct plan *plan, const struct lane *lane) {
  for (ptrdiff_t i = 0; i < plan->relocation_count; i++) {
    const struct relocation *r = plan->relocations + i;
    *r->place = (char *)lane->bases[r->base] + r->offset;
  }
  if (plan->random) plan->random->rate = lane->rate;
}

static void set_images(const struct plan *plan, ptrdiff_t images) {
  if (plan->args_count && plan->args->images == images) return;
  for (ptrdiff_t i = 0; i < plan->args_count; i++) plan->args[i].images = images;
}

static void run(const struct call *calls, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i++) calls[i].function(calls[i].args);
}

/* Changes an image as augment.py does: flips it, shifts it, blackens a box.  `size`: bytes of a pixel. */
static const uint8_t *augmented(const struct plan *plan, const struct augmentation *how, const uint8_t *from,
                                ptrdiff_t at, ptrdiff_t size) {
  if (!how->flips && !how->shifts && !how->boxes) return from;
  const ptrdiff_t height = plan->height, width = plan->width;
  const ptrdiff_t down = how->shifts ? how->shifts[2 * at] : 0, right = how->shifts ? how->shifts[2 * at + 1] : 0;
  const int flips = how->flips && how->flips[at];
  const int64_t *box = how->boxes ? how->boxes + 4 * at : 0;
  for (ptrdiff_t h = 0; h < height; h++)
    for (ptrdiff_t w = 0; w < width; w++) {
      const ptrdiff_t row = h - down, column = flips ? width - 1 - (w - right) : w - right;
      uint8_t *to = plan->image + (h * width + w) * size;
      const int black = box && h >= box[0] && h < box[1] && w >= box[2] && w < box[3];
      if (black || row < 0 || row >= height || column < 0 || column >= width)
        memset(to, 0, size);
      else
        memcpy(to, from + (row * width + column) * size, size);
    }
  return plan->image;
}

/* Writes an image as numbers where the first operation reads them: pixel by pixel, but for rows of features. */
#define PUT(NAME, TYPE)                                                                                              \
  static void NAME(const struct plan *plan, const struct lane *lane, const TYPE *restrict from, ptrdiff_t at) {     \
    const ptrdiff_t C = plan->channels, pixels = plan->height * plan->width;                                         \
    const ptrdiff_t step = plan->layout == BATCH_INNER ? V : 1;                                                      \
    REAL *restrict to = plan->images + at / step * step * C * pixels + at % step;                                    \
    if (C == 1 && step == 1) {                                                                                       \
      const REAL scale = lane->scale[0], shift = lane->shift[0];                                                     \
      for (ptrdiff_t p = 0; p < pixels; p++) to[p] = from[p] * scale + shift;                                        \
    } else if (plan->layout != FEATURES)                                                                             \
      for (ptrdiff_t p = 0; p < pixels; p++)                                                                         \
        for (ptrdiff_t c = 0; c < C; c++) to[(p * C + c) * step] = from[p * C + c] * lane->scale[c] + lane->shift[c]; \
    else                                                                                                             \
      for (ptrdiff_t c = 0; c < C; c++)                                                                              \
        for (ptrdiff_t p = 0; p < pixels; p++) to[c * pixels + p] = from[p * C + c] * lane->scale[c] + lane->shift[c]; \
  }
PUT(put_bytes, uint8_t)
PUT(put_floats, float)

/* Reads images of the dataset; `start`: the place of the first in the epoch's order. */
static void gather(const struct plan *plan, const struct lane *lane, const int64_t *indices, ptrdiff_t start,
                   ptrdiff_t count, const struct augmentation *how) {
  const ptrdiff_t numbers = plan->height * plan->width * plan->channels;
  const ptrdiff_t size = plan->channels * (plan->bytes ? 1 : sizeof(float));
  const uint8_t *all = plan->bytes ? plan->bytes : (const uint8_t *)plan->floats;
  const ptrdiff_t image = size * plan->height * plan->width;
  if (plan->layout == BATCH_INNER && count % V)
    memset(plan->images + count / V * V * numbers, 0, sizeof(REAL) * V * numbers);
  for (ptrdiff_t i = 0; i < count; i++) {
    if (i + 1 < count) __builtin_prefetch(all + indices[i + 1] * image);
    const uint8_t *from = augmented(plan, how, all + indices[i] * image, start + i, size);
    if (plan->bytes)
      put_bytes(plan, lane, from, i);
    else
      put_floats(plan, lane, (const float *)from, i);
  }
}

/* How many logits are largest at their label: the first of equal ones counts, and NaN is the largest. */
static ptrdiff_t hits(const REAL *logits, const int64_t *labels, ptrdiff_t images, ptrdiff_t classes) {
  ptrdiff_t found = 0;
  for (ptrdiff_t n = 0; n < images; n++, logits += classes) {
    ptrdiff_t most = 0;
    for (ptrdiff_t y = 1; y < classes; y++)
      if (logits[y] > logits[most] || (logits[y] != logits[y] && logits[most] == logits[most])) most = y;
    found += most == labels[n];
  }
  return found;
}

/* As torch.lerp computes it. */
static void move_average(const struct averaged *pair, REAL share) {
  REAL *restrict average = pair->average;
  const REAL *restrict of = pair->of;
  if (share < (REAL)0.5)
    for (ptrdiff_t i = 0; i < pair->size; i++) average[i] += share * (of[i] - average[i]);
  else
    for (ptrdiff_t i = 0; i < pair->size; i++) average[i] = of[i] - (of[i] - average[i]) * (1 - share);
}

/* Takes steps `first` to `last`, exclusive, of the lane's epoch.  Returns 0, or the number, counted from 1, of the first
 * image of the epoch whose label is that of no class: the lane then stops before its step. */
ptrdiff_t train(const struct plan *plan, struct lane *lane, ptrdiff_t first, ptrdiff_t last) {
  const ptrdiff_t by[2] = {0, 1};
  if (lane->diverged) return 0;
  bind_lane(plan, lane);
  for (ptrdiff_t step = first; step < last; step++) {
    const ptrdiff_t start = step * lane->batch, count = MIN(lane->batch, lane->count - start);
    set_images(plan, count);
    gather(plan, lane, lane->order + start, start, count, &lane->augmentation);
    for (ptrdiff_t i = 0; i < count; i++) plan->batch_labels[i] = plan->labels[lane->order[start + i]];
    if (plan->random) seed_random(plan->random, lane->seeds[step - first]);
    run(plan->forward, plan->forward_count);
    REAL loss;
    const ptrdiff_t wrong = plan->cross_entropy(plan->logits, plan->batch_labels, by, &lane->loss, &loss,
                                                plan->logits_gradient, 1, count, plan->classes);
    if (wrong) return start + wrong;
    lane->losses[step] = loss;
    lane->hits += hits(plan->logits, plan->batch_labels, count, plan->classes);
    run(plan->backward, plan->backward_count);
    *(double *)lane->recipe = lane->rates[step];
    ++*(int64_t *)((char *)lane->recipe + lane->steps_at);
    plan->optimizer(lane->weights, plan->gradient, lane->first, lane->second, 1, plan->size, lane->recipe);
    for (ptrdiff_t i = 0; i < lane->counter_count; i++) ++*lane->counters[i];
    if (lane->share > 0)
      for (ptrdiff_t i = 0; i < lane->average_count; i++) move_average(lane->averages + i, lane->share);
    if (!isfinite(loss)) {
      lane->diverged = 1;
      return 0;
    }
  }
  return 0;
}

/* Writes the logits [count][classes] of some images, `batch` of them at a time. */
void evaluate(const struct plan *plan, const struct lane *lane, const int64_t *indices, ptrdiff_t count,
              ptrdiff_t batch, REAL *logits) {
  const struct augmentation none = {0};
  bind_lane(plan, lane);
  run(plan->infer, plan->infer_once);
  for (ptrdiff_t start = 0; start < count; start += batch) {
    const ptrdiff_t images = MIN(batch, count - start);
    set_images(plan, images);
    gather(plan, lane, indices + start, 0, images, &none);
    run(plan->infer + plan->infer_once, plan->infer_count - plan->infer_once);
    memcpy(logits + start * plan->classes, plan->logits, sizeof(REAL) * images * plan->classes);
  }
}

/* A forward pass over the images as they lie there already, in training or not; `seed` is the dropout masks'. */
void forward_pass(const struct plan *plan, const struct lane *lane, ptrdiff_t images, int training, uint64_t seed) {
  bind_lane(plan, lane);
  set_images(plan, images);
  if (plan->random) seed_random(plan->random, seed);
  if (!training)
    run(plan->infer, plan->infer_count);
  else {
    run(plan->forward, plan->forward_count);
    for (ptrdiff_t i = 0; i < lane->counter_count; i++) ++*lane->counters[i];
  }
}

/* The backward pass from the gradient of the logits as it lies there; the parameters' is then in `gradient`. */
void backward_pass(const struct plan *plan) { run(plan->backward, plan->backward_count); }

ptrdiff_t random_bytes(void) { return sizeof(struct random); }

/* Sets what dropout draws from, as a lane's step does. */
void seed(struct random *random, uint64_t number, double rate) {
  seed_random(random, number);
  random->rate = rate;
}
