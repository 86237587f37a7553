/* Exponentials and what is made of them, for a vector at a time.
 *
 * In single precision by polynomials; in double, which is there to be compared with, number by number by the C library.
 * What is no number stays that, and infinities give their limits. */

#pragma once

#include <math.h>

#include "batch_inner.h"

#define EACH_NUMBER(NAME, FUNCTION)                                                                                  \
  INLINE vec NAME(vec x) {                                                                                           \
    for (int i = 0; i < V; i++) x[i] = FUNCTION(x[i]);                                                               \
    return x;                                                                                                        \
  }

#if DOUBLE

EACH_NUMBER(exponential, exp)
EACH_NUMBER(exponential_less_1, expm1)
EACH_NUMBER(error_function, erf)
EACH_NUMBER(logarithm, log)
EACH_NUMBER(logarithm_of_1_more, log1p)
EACH_NUMBER(sine, sin)
EACH_NUMBER(cosine, cos)
EACH_NUMBER(to_whole, nearbyint)
EACH_NUMBER(below, floor)

#else

EACH_NUMBER(to_whole, nearbyintf)
EACH_NUMBER(below, floorf)

typedef uint32_t digits __attribute__((vector_size(BYTES))); /* bits of numbers, whose sums may overflow */

/* 2^n e^r with n the whole number nearest to x / ln 2; e^r by the polynomial of Cephes' expf. */
INLINE vec exponential(vec x) {
  const vec whole = all(12582912.0f); /* 1.5 * 2^23: sums with it are whole numbers, and end in their bits */
  const vec shifted = x * all(1.44269504088896341f) + whole, n = shifted - whole;
  const vec r = x - n * all(0.693359375f) + n * all(2.12194440e-4f);
  vec p = all(1.9875691500e-4f);
  p = p * r + all(1.3981999507e-3f);
  p = p * r + all(8.3334519073e-3f);
  p = p * r + all(4.1665795894e-2f);
  p = p * r + all(1.6666665459e-1f);
  p = p * r + all(5.0000001201e-1f);
  p = p * r * r + r + all(1.0f);
  vec y = (vec)((digits)p + ((digits)shifted << 23)); /* of no meaning where n is too far from 0: see below */
  y = where((mask)(x < all(-87.0f)), all(0.0f), y);
  y = where((mask)(x > all(88.3f)), all(INFINITY), y);
  return where((mask)(x == x), y, x);
}

/* e^x - 1; near zero by its series, where the difference would lose digits. */
INLINE vec exponential_less_1(vec x) {
  vec p = all(1 / 5040.0f);
  p = p * x + all(1 / 720.0f);
  p = p * x + all(1 / 120.0f);
  p = p * x + all(1 / 24.0f);
  p = p * x + all(1 / 6.0f);
  p = p * x + all(1 / 2.0f);
  p = p * x * x + x;
  return where((mask)(x < all(0.4f)) & (mask)(x > all(-0.4f)), p, exponential(x) - all(1.0f));
}

/* Abramowitz and Stegun 7.1.26, as torch's own vectors have it: 1.5e-7 at most. */
INLINE vec error_function(vec x) {
  const mask sign = (mask)x & (mask)all(-0.0f);
  const vec size = (vec)((mask)x ^ sign), t = all(1.0f) / (all(1.0f) + all(0.3275911f) * size);
  vec p = all(1.061405429f);
  p = p * t - all(1.453152027f);
  p = p * t + all(1.421413741f);
  p = p * t - all(0.284496736f);
  p = p * t + all(0.254829592f);
  return (vec)((mask)(all(1.0f) - p * t * exponential(-(x * x))) ^ sign);
}

/* ln m + n ln 2 with x = 2^n m and m near 1; ln m by the polynomial of Cephes' logf. */
INLINE vec logarithm(vec x) {
  const mask tiny = (mask)(x < all(1.17549435e-38f)); /* too small to have all its bits */
  const mask bits = (mask)where(tiny, x * all(8388608.0f), x);
  const vec half = (vec)((bits & 0x7fffff) | 0x3f000000);
  const mask low = (mask)(half < all(0.70710678f));
  const vec n = __builtin_convertvector((bits >> 23) - 126 + low - (tiny & 23), vec);
  const vec m = where(low, half + half, half) - all(1.0f), square = m * m;
  vec p = all(7.0376836292e-2f);
  p = p * m - all(1.1514610310e-1f);
  p = p * m + all(1.1676998740e-1f);
  p = p * m - all(1.2420140846e-1f);
  p = p * m + all(1.4249322787e-1f);
  p = p * m - all(1.6668057665e-1f);
  p = p * m + all(2.0000714765e-1f);
  p = p * m - all(2.4999993993e-1f);
  p = p * m + all(3.3333331174e-1f);
  vec y = p * m * square - n * all(2.12194440e-4f) - square * all(0.5f) + m + n * all(0.693359375f);
  y = where((mask)(x < all(INFINITY)), y, x);
  return where((mask)(x > all(0.0f)), y, where((mask)(x == all(0.0f)), all(-INFINITY), all(NAN)));
}

/* ln (1 + x), where the sum loses digits of x by what it has lost. */
INLINE vec logarithm_of_1_more(vec x) {
  const vec sum = all(1.0f) + x;
  const vec y = logarithm(sum) * x / (sum - all(1.0f));
  return where((mask)(sum == all(1.0f)), x, where((mask)(x < all(INFINITY)), y, x));
}

/* The sine of x plus a quarter turn for each of `quarters`.  x less a multiple of pi / 2, in three parts of few digits,
 * is at most pi / 4; then the polynomials of Cephes' sinf and cosf.  Beyond 8192, where the parts have too few digits,
 * number by number by the C library. */
INLINE vec turned_sine(vec x, const int quarters) {
  const vec whole = all(12582912.0f); /* see `exponential` */
  const vec shifted = x * all(0.63661977236758134f) + whole, n = shifted - whole;
  const vec r = x - n * all(1.5703125f) - n * all(4.837512969970703125e-4f) - n * all(7.549789948768648e-8f);
  const digits turns = (digits)shifted + (uint32_t)quarters;
  const vec square = r * r;
  vec s = all(-1.9515295891e-4f);
  s = s * square + all(8.3321608736e-3f);
  s = s * square - all(1.6666654611e-1f);
  s = s * square * r + r;
  vec c = all(2.443315711809948e-5f);
  c = c * square - all(1.388731625493765e-3f);
  c = c * square + all(4.166664568298827e-2f);
  c = c * square * square - all(0.5f) * square + all(1.0f);
  vec y = where((mask)((turns & 1) != 0), c, s);
  y = (vec)((digits)y ^ ((turns & 2) << 30));
  const mask far = ~(mask)((x < all(8192.0f)) & (x > all(-8192.0f)));
  for (int i = 0; i < V; i++)
    if (far[i]) y[i] = quarters ? cosf(x[i]) : sinf(x[i]);
  return y;
}

INLINE vec sine(vec x) { return turned_sine(x, 0); }
INLINE vec cosine(vec x) { return turned_sine(x, 1); }

#endif

/* With an exponent that is no whole number. */
INLINE vec power(vec x, vec exponent) {
  const vec size = where((mask)(x == all(-INFINITY)), all(INFINITY), x);
  return exponential(exponent * logarithm(size));
}

INLINE vec root(vec x) {
  for (int i = 0; i < V; i++) x[i] = DOUBLE ? sqrt(x[i]) : sqrtf(x[i]);
  return x;
}

INLINE vec sigmoid(vec x) { return all(1) / (all(1) + exponential(-x)); }

/* -m / (m + 2) with m = e^(-2 |x|) - 1, which loses no digits. */
INLINE vec hyperbolic_tangent(vec x) {
  const mask sign = (mask)x & (mask)all((REAL)-0.0);
  const vec size = (vec)((mask)x ^ sign), m = exponential_less_1(size * all(-2));
  return (vec)((mask)(-m / (m + all(2))) ^ sign);
}
