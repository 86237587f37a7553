/* Each lane's mean cross-entropy of a step and its gradient with respect to the logits, with the lane's own label
 * smoothing.
 *
 * Compiled for the machine that runs it; DOUBLE (see vectors.h) comes from the compiler's command line.  A step has
 * few logits: six passes over them cost mostly the calls.  Sums have a fixed order: the same bytes each time.
 */

#include <math.h>

#include "vectors.h"

#if DOUBLE
#define EXP exp
#else
#define EXP expf
#endif

/* logits and gradients [lanes][images][classes]; labels with the strides [2] of lanes and images; smoothing and losses
 * [lanes].  Returns 0, or the number, counted from 1, of the first label that is that of no class: nothing is read or
 * written for it, nor after it. */
ptrdiff_t cross_entropy(const REAL *logits, const int64_t *labels, const ptrdiff_t *by, const REAL *smoothing,
                        REAL *losses, REAL *gradients, ptrdiff_t lanes, ptrdiff_t images, ptrdiff_t classes) {
  for (ptrdiff_t k = 0; k < lanes; k++) {
    const REAL rest = smoothing[k] / classes; /* every class's share of the label smoothing */
    double loss = 0;
    for (ptrdiff_t n = 0; n < images; n++, logits += classes, gradients += classes) {
      const int64_t label = labels[k * by[0] + n * by[1]];
      if (label < 0 || label >= classes) return k * images + n + 1;
      REAL max = logits[0], sum = 0, all = 0;
      for (ptrdiff_t y = 1; y < classes; y++) max = logits[y] > max ? logits[y] : max;
      for (ptrdiff_t y = 0; y < classes; y++) {
        all += logits[y] - max;
        sum += gradients[y] = EXP(logits[y] - max);
      }
      const REAL scale = 1 / sum, level = (REAL)log(sum);
      for (ptrdiff_t y = 0; y < classes; y++) gradients[y] = (gradients[y] * scale - rest) / images;
      gradients[label] -= (1 - smoothing[k]) / images;
      const REAL own = level - (logits[label] - max);
      /* without label smoothing an infinite loss of another class must not count */
      loss += rest > 0 ? (1 - smoothing[k]) * own + rest * (classes * level - all) : own;
    }
    losses[k] = (REAL)(loss / images);
  }
  return 0;
}
