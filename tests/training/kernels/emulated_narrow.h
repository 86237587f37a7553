/* What narrow.h has of a processor's instructions for bfloat16, number by number: slow, and as exact as they are. */

#define NARROW 1

INLINE uint32_t rounded_bits(REAL number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof(bits));
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40; /* NaN */
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE REAL half_of(REAL word, int upper) {
  uint32_t bits;
  memcpy(&bits, &word, sizeof(bits));
  bits = upper ? bits & 0xffff0000 : bits << 16;
  REAL number;
  memcpy(&number, &bits, sizeof(bits));
  return number;
}

INLINE REAL word_of(REAL low, REAL high) {
  const uint32_t bits = rounded_bits(low) | rounded_bits(high) << 16;
  REAL both;
  memcpy(&both, &bits, sizeof(bits));
  return both;
}

INLINE vec narrow(vec sum, vec a, vec b) {
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < V; i++) sum[i] += half_of(a[i], half) * half_of(b[i], half);
  return sum;
}

INLINE vec words(vec low, vec high) {
  for (int i = 0; i < V; i++) low[i] = word_of(low[i], high[i]);
  return low;
}

INLINE vec halves(vec low, vec high) {
  vec both;
  for (int i = 0; i < V / 2; i++) {
    both[i] = word_of(low[2 * i], low[2 * i + 1]);
    both[i + V / 2] = word_of(high[2 * i], high[2 * i + 1]);
  }
  return both;
}
