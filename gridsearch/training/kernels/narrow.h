/* Products of bfloat16, where the processor has them: two of them at a time are added to a sum in single precision.
 *
 * Two numbers of bfloat16 share the place of one float, a word: what moves floats moves words too. */

#pragma once

#include "batch_inner.h"

INLINE vec whole(vec sum, vec a, vec b) { return sum + a * b; }

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && !DOUBLE
#define NARROW 1
#include <immintrin.h>

INLINE vec narrow(vec sum, vec a, vec b) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

/* Words of two vectors' numbers, rounded to even: those of `low` in the lower halves. */
INLINE vec words(vec low, vec high) {
  const __m512i places = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                          21,
                                          5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (vec)_mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}

/* Those of `low` in the first half, rounded to even, two beside each other in a word, and those of `high` behind. */
INLINE vec halves(vec low, vec high) { return (vec)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

INLINE REAL word_of(REAL low, REAL high) {
  const __m128 both = _mm_unpacklo_ps(_mm_set_ss(low), _mm_set_ss(high));
  return _mm_cvtss_f32((__m128)_mm_cvtneps_pbh(both));
}
#elif defined(NARROW_FROM) && !DOUBLE
#include NARROW_FROM /* what computes the same without such instructions, for tests */
#else
#define NARROW 0
INLINE vec words(vec low, vec high) { return low + high; } /* these are never called */
INLINE vec halves(vec low, vec high) { return low + high; }
INLINE REAL word_of(REAL low, REAL high) { return low + high; }
#endif

/* Whether this machine multiplies bfloat16. */
int64_t multiplies_narrow(void) { return NARROW; }
