/* A recurrent layer in one direction over all steps of its images, of one lane: RNN, LSTM and GRU as torch has them.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  Its input and
 * its result are features, [images][steps * F] and [images][steps * H].  The states before the first step, and an LSTM's
 * cells, are zeros, or further inputs [images][H]; its cells after the last one may come behind an image's states.  Inside, everything is [steps][images] rows of
 * whole vectors, zeros behind the end, so that the products of all steps with the input's weights are one product, and
 * so are the gradients of the weights.
 *
 * A row of the gates has blocks of H numbers, as many as the kind has.  The input's product goes into the first ones,
 * the state's into the last ones:
 *
 *   RNN   one, both go into it
 *   LSTM  input, forget, cell, output: both go into all
 *   GRU   new (input's part), reset, update, new (state's part)
 *
 * In the backward pass the gradients take the place of the gates.
 */

#include "curves.h"
#include "row_products.h"

enum { RNN_TANH, RNN_RELU, LSTM, GRU };
enum { MOST_BLOCKS = 4 };
enum { IMAGES = 64 }; /* at a time: their gates stay in a cache */

struct recurrent {
  int64_t cell, steps, inputs, hidden;
  int64_t reverse; /* the last step comes first */
  int64_t begins;  /* the states before the first step are given */
  int64_t ends;    /* the cells after the last step are behind the states */
};

/* Numbers of an image's result. */
static ptrdiff_t results(const struct recurrent *s) { return (s->steps + (s->ends ? 1 : 0)) * s->hidden; }

static ptrdiff_t whole_vectors(ptrdiff_t numbers) { return CEIL_DIV(numbers, V) * V; }

/* Which blocks there are; torch's gate k of the input's weights is block `from_input[k]`, likewise of the state's. */
struct blocks {
  ptrdiff_t all, gates, of_state; /* blocks; gates of a matrix of weights; the first block of the state's product */
  ptrdiff_t from_input[MOST_BLOCKS], from_state[MOST_BLOCKS];
};

static struct blocks blocks_of(int64_t kind) {
  if (kind == LSTM) return (struct blocks){4, 4, 0, {0, 1, 2, 3}, {0, 1, 2, 3}};
  if (kind == GRU) return (struct blocks){4, 3, 1, {1, 2, 0}, {1, 2, 3}};
  return (struct blocks){1, 1, 0, {0}, {0}};
}

/* Where everything lies. */
struct parts {
  ptrdiff_t rows, inputs, hidden, width; /* steps * images; whole vectors of an input, a state and a row of gates */
  REAL *x, *gates;
  REAL *states, *cells; /* in the order of the steps; they begin with those before the first one */
};

static struct parts parts_of(const struct recurrent *s, ptrdiff_t images, REAL *memory) {
  struct parts p = {s->steps * images, whole_vectors(s->inputs), whole_vectors(s->hidden), 0, 0, 0, 0, 0};
  p.width = blocks_of(s->cell).all * p.hidden;
  p.x = memory;
  p.gates = p.x + p.rows * p.inputs;
  p.states = p.gates + p.rows * p.width;
  p.cells = p.states + (p.rows + images) * p.hidden;
  return p;
}

/* Sizes of saved and of the workspace, in numbers, for so many images. */
ptrdiff_t recurrent_saved(const struct recurrent *s, ptrdiff_t images) {
  const struct parts p = parts_of(s, images, 0);
  return p.rows * (p.inputs + p.width) + (s->cell == LSTM || s->reverse ? 2 : 1) * (p.rows + images) * p.hidden;
}

static ptrdiff_t weight_numbers(const struct recurrent *s) {
  const struct parts p = parts_of(s, 0, 0);
  return p.width * (p.inputs + p.hidden + 1);
}

ptrdiff_t recurrent_workspace(const struct recurrent *s, ptrdiff_t images) {
  const struct parts p = parts_of(s, MIN(images, IMAGES), 0);
  const ptrdiff_t backward = 2 * weight_numbers(s) + p.rows * p.inputs + 2 * MIN(images, IMAGES) * p.hidden;
  return MAX(backward, weight_numbers(s) + recurrent_saved(s, MIN(images, IMAGES)));
}

/* The weights [gates * H][count] of torch as [all blocks][count in whole vectors], or turned. */
static void lay_weights(const struct recurrent *s, const REAL *w, ptrdiff_t count, const ptrdiff_t *blocks, REAL *to,
                        const int turned) {
  const struct parts p = parts_of(s, 0, 0);
  const ptrdiff_t wide = whole_vectors(count), gates = blocks_of(s->cell).gates;
  memset(to, 0, sizeof(REAL) * wide * p.width);
  for (ptrdiff_t k = 0; k < gates; k++)
    for (ptrdiff_t j = 0; j < s->hidden; j++, w += count) {
      const ptrdiff_t row = blocks[k] * p.hidden + j;
      for (ptrdiff_t i = 0; i < count; i++) to[turned ? i * p.width + row : row * wide + i] = w[i];
    }
}

/* The gradient of weights as torch has them, from [all blocks][count in whole vectors]. */
static void take_gradient(const struct recurrent *s, const REAL *from, ptrdiff_t count, const ptrdiff_t *blocks,
                          REAL *to) {
  const ptrdiff_t gates = blocks_of(s->cell).gates, wide = whole_vectors(count), hidden = whole_vectors(s->hidden);
  for (ptrdiff_t k = 0; k < gates; k++)
    for (ptrdiff_t j = 0; j < s->hidden; j++, to += count)
      memcpy(to, from + (blocks[k] * hidden + j) * wide, sizeof(REAL) * count);
}

/* Moves rows between [images][steps * count] and [steps][images][count in whole vectors]. */
static void to_steps(const REAL *from, ptrdiff_t steps, ptrdiff_t count, ptrdiff_t images, REAL *to) {
  const ptrdiff_t wide = whole_vectors(count);
  for (ptrdiff_t t = 0; t < steps; t++)
    for (ptrdiff_t b = 0; b < images; b++, to += wide) {
      memcpy(to, from + (b * steps + t) * count, sizeof(REAL) * count);
      for (ptrdiff_t i = count; i < wide; i++) to[i] = 0;
    }
}

static void from_steps(const REAL *from, ptrdiff_t steps, ptrdiff_t count, ptrdiff_t images, REAL *to, int adds) {
  const ptrdiff_t wide = whole_vectors(count);
  for (ptrdiff_t t = 0; t < steps; t++)
    for (ptrdiff_t b = 0; b < images; b++, from += wide) {
      REAL *own = to + (b * steps + t) * count;
      for (ptrdiff_t i = 0; i < count; i++) own[i] = adds ? own[i] + from[i] : from[i];
    }
}

/* Where the gates of a step lie. */
static ptrdiff_t place_of(const struct recurrent *s, ptrdiff_t step) {
  return s->reverse ? s->steps - 1 - step : step;
}

/* One row of gates becomes that of activations; the state (and the cell) after the step follow from those before. */
INLINE void activate(int64_t kind, REAL *gates, const REAL *before, REAL *state, const REAL *cell_before, REAL *cell,
                     ptrdiff_t hidden) {
  for (ptrdiff_t j = 0; j < hidden; j += V) {
    vec *g = (vec *)(gates + j);
    const ptrdiff_t next = hidden / V;
    if (kind == LSTM) {
      const vec in = sigmoid(g[0]), forget = sigmoid(g[next]), new = hyperbolic_tangent(g[2 * next]);
      const vec out = sigmoid(g[3 * next]), own = forget * *(const vec *)(cell_before + j) + in * new;
      g[0] = in, g[next] = forget, g[2 * next] = new, g[3 * next] = out;
      *(vec *)(cell + j) = own;
      *(vec *)(state + j) = out * hyperbolic_tangent(own);
    } else if (kind == GRU) {
      const vec reset = sigmoid(g[next]), update = sigmoid(g[2 * next]);
      const vec new = hyperbolic_tangent(g[0] + reset * g[3 * next]);
      g[0] = new, g[next] = reset, g[2 * next] = update;
      *(vec *)(state + j) = new + update * (*(const vec *)(before + j) - new);
    } else if (kind == RNN_RELU) {
      *(vec *)(state + j) = g[0] = (vec)((mask)g[0] & ~(mask)(g[0] <= 0));
    } else {
      *(vec *)(state + j) = g[0] = hyperbolic_tangent(g[0]);
    }
  }
}

/* One row of activations becomes that of gradients; those of the state and the cell become those of what was before
 * the step, as far as no weights lie between. */
INLINE void differentiate(int64_t kind, REAL *gates, const REAL *before, const REAL *cell_before, const REAL *cell,
                          REAL *gstate, REAL *gcell, ptrdiff_t hidden) {
  for (ptrdiff_t j = 0; j < hidden; j += V) {
    vec *g = (vec *)(gates + j), *grad = (vec *)(gstate + j);
    const ptrdiff_t next = hidden / V;
    if (kind == LSTM) {
      const vec in = g[0], forget = g[next], new = g[2 * next], out = g[3 * next];
      const vec level = hyperbolic_tangent(*(const vec *)(cell + j));
      const vec own = *(vec *)(gcell + j) + *grad * out * (all(1) - level * level);
      g[0] = own * new * in * (all(1) - in);
      g[next] = own * *(const vec *)(cell_before + j) * forget * (all(1) - forget);
      g[2 * next] = own * in * (all(1) - new * new);
      g[3 * next] = *grad * level * out * (all(1) - out);
      *(vec *)(gcell + j) = own * forget;
      *grad = all(0);
    } else if (kind == GRU) {
      const vec new = g[0], reset = g[next], update = g[2 * next], old = *(const vec *)(before + j);
      const vec own = *grad * (all(1) - update) * (all(1) - new * new);
      g[next] = own * g[3 * next] * reset * (all(1) - reset);
      g[2 * next] = *grad * (old - new) * update * (all(1) - update);
      g[0] = own;
      g[3 * next] = own * reset;
      *grad *= update;
    } else {
      g[0] = kind == RNN_RELU ? (vec)((mask)*grad & ~(mask)(g[0] <= 0)) : *grad * (all(1) - g[0] * g[0]);
      *grad = all(0);
    }
  }
}

/* Where weights, or their gradients, lie: of the input, of the state, and biases, each of all blocks. */
struct weights {
  REAL *of_input, *of_state, *bias;
};

static struct weights weights_at(const struct recurrent *s, REAL *memory) {
  const struct parts p = parts_of(s, 0, 0);
  REAL *of_state = memory + p.width * p.inputs;
  return (struct weights){memory, of_state, of_state + p.width * p.hidden};
}

/* params: weights of the input [gates * H][F] and of the state [gates * H][H], their biases [gates * H] */
static struct weights weights_of(const struct op_args *a, REAL *memory, const int turned) {
  const struct recurrent *s = a->constants;
  const struct blocks k = blocks_of(s->cell);
  const ptrdiff_t hidden = whole_vectors(s->hidden);
  const struct weights w = weights_at(s, memory);
  lay_weights(s, a->params[0], s->inputs, k.from_input, w.of_input, turned);
  lay_weights(s, a->params[1], s->hidden, k.from_state, w.of_state, turned);
  memset(w.bias, 0, sizeof(REAL) * k.all * hidden);
  for (ptrdiff_t own = 2; own < 4; own++)
    for (ptrdiff_t i = 0; a->params[own] && i < k.gates * s->hidden; i++) {
      const ptrdiff_t block = (own == 2 ? k.from_input : k.from_state)[i / s->hidden];
      w.bias[block * hidden + i % s->hidden] += ((const REAL *)a->params[own])[i];
    }
  return w;
}

/* The forward pass of the images from `b` on. */
static void run(const struct op_args *a, const struct weights *w, ptrdiff_t b, REAL *memory, ptrdiff_t images) {
  const struct recurrent *s = a->constants;
  const struct blocks k = blocks_of(s->cell);
  const struct parts p = parts_of(s, images, memory);
  const ptrdiff_t size = images * p.hidden, first = k.of_state * p.hidden, count = k.gates * p.hidden;
  REAL *y = (REAL *)a->y + b * results(s);
  to_steps((const REAL *)a->x[0] + b * s->steps * s->inputs, s->steps, s->inputs, images, p.x);
  for (ptrdiff_t r = 0; r < p.rows; r++) memcpy(p.gates + r * p.width, w->bias, sizeof(REAL) * p.width);
  matmul(p.x, p.inputs, 1, w->of_input, p.width, s->inputs, p.gates, p.width, 1, 0, p.rows, count);
  for (int i = 0; i < (s->cell == LSTM ? 2 : 1); i++) {
    REAL *before = i ? p.cells : p.states;
    if (s->begins)
      to_steps((const REAL *)a->x[1 + i] + b * s->hidden, 1, s->hidden, images, before);
    else
      memset(before, 0, sizeof(REAL) * size);
  }
  for (ptrdiff_t n = 0; n < s->steps; n++) {
    const ptrdiff_t place = place_of(s, n);
    REAL *gates = p.gates + place * images * p.width;
    REAL *before = p.states + n * size, *cells = s->cell == LSTM ? p.cells + n * size : 0;
    if (n > 0 || s->begins)
      matmul(before, p.hidden, 1, w->of_state + first, p.width, s->hidden, gates + first, p.width, 1, 0, images, count);
    for (ptrdiff_t i = 0; i < images; i++) {
      REAL *state = before + i * p.hidden, *cell = cells ? cells + i * p.hidden : 0;
      activate(s->cell, gates + i * p.width, state, state + size, cell, cells ? cell + size : 0, p.hidden);
      memcpy(y + i * results(s) + place * s->hidden, state + size, sizeof(REAL) * s->hidden);
    }
  }
  for (ptrdiff_t i = 0; s->ends && i < images; i++)
    memcpy(y + i * results(s) + s->steps * s->hidden, p.cells + s->steps * size + i * p.hidden,
           sizeof(REAL) * s->hidden);
}

/* Runs all images; each part of them leaves what `backward` needs, or writes over what the last one has left. */
static void run_all(const struct op_args *a, REAL *memory, const int saves) {
  const struct recurrent *s = a->constants;
  const struct weights w = weights_of(a, a->workspace, 1);
  for (ptrdiff_t b = 0; b < a->images; b += IMAGES)
    run(a, &w, b, memory + (saves ? recurrent_saved(s, b) : 0), MIN(IMAGES, a->images - b));
}

void recurrent_forward(const struct op_args *a) { run_all(a, a->saved, 1); }

void recurrent_infer(const struct op_args *a) {
  run_all(a, (REAL *)a->workspace + weight_numbers(a->constants), 0);
}

/* Adds the gradients of weights and biases, from those of all rows of gates. */
static void add_gradients(const struct recurrent *s, const struct parts *p, const struct weights *sums,
                          ptrdiff_t images) {
  const struct blocks k = blocks_of(s->cell);
  const ptrdiff_t size = images * p->hidden, height = k.gates * p->hidden, first = k.of_state * p->hidden;
  matmul(p->gates, 1, p->width, p->x, p->inputs, p->rows, sums->of_input, p->inputs, 1, 0, height, p->inputs);
  for (ptrdiff_t n = 0; n < s->steps && s->reverse; n++) /* in the order of the gates */
    memcpy(p->cells + place_of(s, n) * size, p->states + n * size, sizeof(REAL) * size);
  matmul(p->gates + first, 1, p->width, s->reverse ? p->cells : p->states, p->hidden, p->rows,
         sums->of_state + first * p->hidden, p->hidden, 1, 0, height, p->hidden);
  for (ptrdiff_t r = 0; r < p->rows; r++)
    for (ptrdiff_t i = 0; i < p->width; i++) sums->bias[i] += p->gates[r * p->width + i];
}

/* The backward pass of some images, given y's gradient; the workspace gets those of the states and the cells before
 * the first step. */
static void differentiate_all(const struct recurrent *s, const struct parts *p, const struct weights *w, const REAL *gy,
                              REAL *workspace, ptrdiff_t images) {
  const struct blocks k = blocks_of(s->cell);
  const ptrdiff_t size = images * p->hidden, first = k.of_state * p->hidden;
  REAL *gstate = workspace, *gcell = gstate + size;
  memset(gstate, 0, sizeof(REAL) * 2 * size);
  for (ptrdiff_t b = 0; s->ends && b < images; b++)
    memcpy(gcell + b * p->hidden, gy + b * results(s) + s->steps * s->hidden, sizeof(REAL) * s->hidden);
  for (ptrdiff_t n = s->steps - 1; n >= 0; n--) {
    const ptrdiff_t place = place_of(s, n);
    REAL *gates = p->gates + place * images * p->width, *cells = s->cell == LSTM ? p->cells + n * size : 0;
    for (ptrdiff_t b = 0; b < images; b++) {
      const ptrdiff_t at = b * p->hidden;
      REAL *own = gstate + at, *cell = cells ? cells + at : 0, *after = cells ? cell + size : 0;
      for (ptrdiff_t j = 0; j < s->hidden; j++) own[j] += gy[b * results(s) + place * s->hidden + j];
      differentiate(s->cell, gates + b * p->width, p->states + n * size + at, cell, after, own, gcell + at, p->hidden);
    }
    if (n > 0 || s->begins)
      matmul(gates + first, p->width, 1, w->of_state + first * p->hidden, p->hidden, k.gates * p->hidden, gstate,
             p->hidden, 1, 0, images, p->hidden);
  }
}

void recurrent_backward(const struct op_args *a) {
  const struct recurrent *s = a->constants;
  const struct blocks k = blocks_of(s->cell);
  REAL *workspace = a->workspace;
  const struct weights w = weights_of(a, workspace, 0), sums = weights_at(s, workspace + weight_numbers(s));
  memset(sums.of_input, 0, sizeof(REAL) * weight_numbers(s));
  workspace += 2 * weight_numbers(s);
  for (ptrdiff_t b = 0; b < a->images; b += IMAGES) {
    const ptrdiff_t images = MIN(IMAGES, a->images - b);
    const struct parts p = parts_of(s, images, (REAL *)a->saved + recurrent_saved(s, b));
    REAL *gx = workspace + 2 * images * p.hidden;
    differentiate_all(s, &p, &w, (const REAL *)a->gy + b * results(s), workspace, images);
    for (int i = s->cell == LSTM ? 2 : 1; i > 0; i--) /* the last input first */
      if (s->begins && a->gx[i])
        from_steps(workspace + (i - 1) * images * p.hidden, 1, s->hidden, images, (REAL *)a->gx[i] + b * s->hidden,
                   a->adds[i]);
    add_gradients(s, &p, &sums, images);
    if (!a->gx[0]) continue;
    matmul(p.gates, p.width, 1, w.of_input, p.inputs, k.gates * p.hidden, gx, p.inputs, 0, 0, p.rows, p.inputs);
    from_steps(gx, s->steps, s->inputs, images, (REAL *)a->gx[0] + b * s->steps * s->inputs, a->adds[0]);
  }
  if (a->grads[0]) take_gradient(s, sums.of_input, s->inputs, k.from_input, a->grads[0]);
  if (a->grads[1]) take_gradient(s, sums.of_state, s->hidden, k.from_state, a->grads[1]);
  for (ptrdiff_t own = 2; own < 4; own++)
    for (ptrdiff_t i = 0; a->grads[own] && i < k.gates * s->hidden; i++) {
      const ptrdiff_t block = (own == 2 ? k.from_input : k.from_state)[i / s->hidden];
      ((REAL *)a->grads[own])[i] = sums.bias[block * whole_vectors(s->hidden) + i % s->hidden];
    }
}
