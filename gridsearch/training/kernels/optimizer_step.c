/* A step of an optimizer for all lanes, each with its own rate, decay and number of steps.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) and KIND, which optimizer (below), come from the
 * compiler's command line.  One pass over all numbers; the coefficients are computed in double precision from
 * torch's own formulas (torch.optim, and its fused kernels where there are any).
 */

#include <math.h>

#include "vectors.h"

enum { SGD, ADAM, ADAMW, NADAM, RMSPROP };

#if DOUBLE
#define SQRT sqrt
#else
#define SQRT sqrtf
#endif

/* The defaults of torch.optim. */
#define BETA1 0.9
#define BETA2 0.999
#define EPS 1e-8
#define ALPHA 0.99
#define MOMENTUM_DECAY 4e-3

#define CLIP_EPS 1e-6 /* of torch.nn.utils.clip_grad_norm_ */
#define CLIP_SUMS 32  /* that grow side by side: one alone waits for each addition */

/* A lane's recipe, and how many steps it has taken. */
struct lane {
  double lr, decay, momentum;
  double clip_norm, clip_value; /* 0 for none */
  int64_t nesterov, steps; /* this one included */
  float mu_product;        /* NAdam's product of all its momenta, which torch keeps in single precision */
};

static double mu(double steps) { return BETA1 * (1 - 0.5 * pow(0.96, steps * MOMENTUM_DECAY)); }

/* Clips the gradient [size] of a lane as torch.nn.utils.clip_grad_value_ and then clip_grad_norm_ do. */
static void clip(REAL *gradients, ptrdiff_t size, const struct lane *lane) {
  const REAL most = lane->clip_value;
  if (most > 0)
    for (ptrdiff_t i = 0; i < size; i++) { /* NaN stays NaN */
      const REAL g = gradients[i];
      gradients[i] = g > most ? most : g < -most ? -most : g;
    }
  if (lane->clip_norm > 0) {
    double sums[CLIP_SUMS] = {0}, sum = 0;
    ptrdiff_t i = 0;
    for (; i + CLIP_SUMS <= size; i += CLIP_SUMS)
      for (ptrdiff_t j = 0; j < CLIP_SUMS; j++) sums[j] += (double)gradients[i + j] * gradients[i + j];
    for (; i < size; i++) sum += (double)gradients[i] * gradients[i];
    for (ptrdiff_t j = 0; j < CLIP_SUMS; j++) sum += sums[j];
    const double factor = lane->clip_norm / (sqrt(sum) + CLIP_EPS);
    if (factor >= 1) return;
    for (i = 0; i < size; i++) gradients[i] *= (REAL)factor; /* of a norm that is NaN, NaN */
  }
}

/* Moves the weights [size] of a lane.  first, second: the optimizer state of each (see `STATE` in `lane_optimizer`);
 * unused where it has less. */
static void update(REAL *restrict weights, const REAL *restrict gradients, REAL *restrict first, REAL *restrict second,
                 ptrdiff_t size, struct lane *lane) {
  const double n = lane->steps, lr = lane->lr;
  const REAL decay = KIND == ADAMW ? 0 : lane->decay, shrink = 1 - lr * lane->decay;
  if (KIND == SGD) {
    const REAL rate = lr, momentum = lane->momentum;
    const int nesterov = lane->nesterov;
    if (lane->momentum > 0)
      for (ptrdiff_t i = 0; i < size; i++) {
        const REAL gradient = gradients[i] + decay * weights[i], buffer = first[i] * momentum + gradient;
        first[i] = buffer;
        weights[i] -= rate * (nesterov ? gradient + momentum * buffer : buffer);
      }
    else
      for (ptrdiff_t i = 0; i < size; i++) weights[i] -= rate * (gradients[i] + decay * weights[i]);
    return;
  }
  if (KIND == RMSPROP) {
    const REAL rate = lr, kept = ALPHA, new = 1 - ALPHA, eps = EPS;
    for (ptrdiff_t i = 0; i < size; i++) {
      const REAL gradient = gradients[i] + decay * weights[i];
      first[i] = first[i] * kept + new * gradient * gradient;
      weights[i] -= rate * (gradient / (SQRT(first[i]) + eps));
    }
    return;
  }
  const REAL new = 1 - BETA1, kept_square = BETA2, new_square = 1 - BETA2, eps = EPS;
  const REAL correction = sqrt(1 - pow(BETA2, n));
  REAL gradient_rate = 0, mean_rate = lr / (1 - pow(BETA1, n));
  if (KIND == NADAM) {
    const double ahead = mu(n + 1);
    lane->mu_product *= (float)mu(n);
    gradient_rate = lr * (1 - mu(n)) / (1 - (double)lane->mu_product);
    mean_rate = lr * ahead / (1 - lane->mu_product * ahead);
  }
  for (ptrdiff_t i = 0; i < size; i++) {
    const REAL weight = KIND == ADAMW ? weights[i] * shrink : weights[i];
    const REAL gradient = gradients[i] + decay * weight, mean = first[i] + (gradient - first[i]) * new;
    const REAL square = second[i] * kept_square + new_square * gradient * gradient;
    first[i] = mean;
    second[i] = square;
    const REAL root = SQRT(square) / correction + eps;
    const REAL change =
        KIND == NADAM ? (gradient_rate * gradient + mean_rate * mean) / root : mean_rate * (mean / root);
    weights[i] = weight - change;
  }
}

/* weights, gradients (which clipping changes), first and second [lanes][size]. */
void step(REAL *weights, REAL *gradients, REAL *first, REAL *second, ptrdiff_t lanes, ptrdiff_t size,
          struct lane *of) {
  for (ptrdiff_t k = 0; k < lanes; k++) {
    clip(gradients + k * size, size, of + k);
    update(weights + k * size, gradients + k * size, first ? first + k * size : 0, second ? second + k * size : 0, size,
           of + k);
  }
}
