/* The Mersenne Twister as torch seeds it on a CPU: what a plan's dropout draws from.
 *
 * M. Matsumoto and T. Nishimura, "Mersenne twister: a 623-dimensionally equidistributed uniform pseudo-random number
 * generator", 1998.  Where torch draws its masks from it, a plan's masks are torch's to the bit (see dropout.py).
 */

#pragma once

#include <stddef.h>
#include <stdint.h>

enum { WORDS = 624, SHIFTED_BY = 397 };

struct random {
  uint32_t state[WORDS + 16], drawn[WORDS]; /* vectors may read behind the state */
  ptrdiff_t next;                           /* of what is drawn */
  double rate;                              /* the lane's dropout rate; negative for the model's own */
};

static inline uint32_t mixed(uint32_t a, uint32_t b, uint32_t far) {
  return far ^ (((a & 0x80000000u) | (b & 0x7fffffffu)) >> 1) ^ (-(b & 1u) & 0x9908b0dfu);
}

static void draw_words(struct random *r) {
  uint32_t *s = r->state;
  for (ptrdiff_t i = 0; i < WORDS - SHIFTED_BY; i++) s[i] = mixed(s[i], s[i + 1], s[i + SHIFTED_BY]);
  /* the new words depend on those of 227 before: as many at a time have nothing to do with each other */
  for (ptrdiff_t from = WORDS - SHIFTED_BY; from < WORDS - 1; from += WORDS - SHIFTED_BY) {
    const ptrdiff_t to = from + WORDS - SHIFTED_BY < WORDS - 1 ? from + WORDS - SHIFTED_BY : WORDS - 1;
    for (ptrdiff_t i = from; i < to; i++) s[i] = mixed(s[i], s[i + 1], s[i + SHIFTED_BY - WORDS]);
  }
  s[WORDS - 1] = mixed(s[WORDS - 1], s[0], s[SHIFTED_BY - 1]);
  for (ptrdiff_t i = 0; i < WORDS; i++) {
    uint32_t y = s[i];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    r->drawn[i] = y ^ (y >> 18);
  }
  r->next = 0;
}

static void seed_random(struct random *r, uint64_t seed) {
  r->state[0] = (uint32_t)seed;
  for (ptrdiff_t i = 1; i < WORDS; i++)
    r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + (uint32_t)i;
  r->next = WORDS;
}
