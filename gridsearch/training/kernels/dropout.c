/* Dropout of one lane, with the mask that torch would draw for it alone.
 *
 * Compiled for one shape; the constants come from the compiler's command line:
 *
 *   DOUBLE, LAYOUT (0 features, 1 channels last, 2 batch inner)     C, PIXELS    channels, and numbers of each
 *   WHOLE    1 drops whole channels          LAST     1 if torch's own mask has the channels last
 *   RATE     the model's own rate            RECIPE   1 if a lane's rate goes before it
 *
 * buffers[0]: the lane's `struct random`, which masks come from in the order of the calls.  saved: a byte for each number
 * of the mask, in torch's order.
 */

#include <math.h>

#include "vectors.h"

#include "op.h"
#include "random.h"

enum { EACH = WHOLE ? 1 : PIXELS }; /* numbers of the mask for a channel */

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

static double rate_of(const struct op_args *args) {
  const struct random *r = args->buffers[0];
  return RECIPE && r->rate >= 0 ? r->rate : RATE;
}

INLINE ptrdiff_t in_mask(ptrdiff_t image, ptrdiff_t channel, ptrdiff_t pixel) {
  if (WHOLE) return image * C + channel;
  return LAST ? (image * PIXELS + pixel) * C + channel : (image * C + channel) * PIXELS + pixel;
}

/* to = from where the mask is set, times the scale; else 0, whatever `from` is times 0 */
static void apply(const struct op_args *args, const REAL *restrict from, REAL *to, int adds) {
  const double rate = rate_of(args);
  const uint8_t *mask = args->saved;
  const ptrdiff_t images = args->images;
  const REAL keep = 1 - rate, scale = rate >= 1 ? 0 : 1 / keep;
  const ptrdiff_t blocks = LAYOUT == 2 ? CEIL_DIV(images, V) : images;
  for (ptrdiff_t b = 0; b < blocks; b++)
    for (ptrdiff_t i = 0; i < C * PIXELS; i++) {
      const ptrdiff_t c = LAYOUT > 0 ? i % C : i / PIXELS, p = LAYOUT > 0 ? i / C : i % PIXELS;
      const ptrdiff_t here = LAYOUT == 2 ? V : 1;
      for (ptrdiff_t v = 0; v < here; v++) {
        const ptrdiff_t n = b * here + v, at = (b * C * PIXELS + i) * here + v;
        const REAL factor = n < images && (rate == 0 || (rate < 1 && mask[in_mask(n, c, p)])) ? scale : 0;
        const REAL value = from[at] * factor;
        to[at] = adds ? to[at] + value : value;
      }
    }
}

void forward(const struct op_args *args) {
  const double rate = rate_of(args);
  if (rate > 0 && rate < 1) draw_mask(args->buffers[0], args->saved, args->images * C * EACH, 1 - rate);
  apply(args, args->x[0], args->y, 0);
}

void infer(const struct op_args *args) {
  const ptrdiff_t images = LAYOUT == 2 ? CEIL_DIV(args->images, V) * V : args->images;
  if (args->y != args->x[0]) memcpy(args->y, args->x[0], sizeof(REAL) * images * C * PIXELS);
}

void backward(const struct op_args *args) {
  if (args->gx[0]) apply(args, args->gy, args->gx[0], args->adds[0]);
}
