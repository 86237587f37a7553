/* Vectors of this machine's registers, in the terms that GCC and clang share.  DOUBLE, 1 for double and 0 for float,
 * comes from the compiler's command line. */

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if DOUBLE
typedef double REAL;
#else
typedef float REAL;
#endif

#if defined(__AVX512F__)
#define BYTES 64 /* of a vector register */
#define SUMS 24  /* vector registers that may hold sums */
#elif defined(__AVX__)
#define BYTES 32
#define SUMS 12
#else
#define BYTES 16
#define SUMS 12
#endif

#define V (BYTES / (DOUBLE ? 8 : 4)) /* numbers in a vector */
typedef REAL vec __attribute__((vector_size(BYTES)));
/* anywhere in memory */
typedef REAL unaligned_vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef __typeof__(__builtin_choose_expr(sizeof(REAL) == 8, (int64_t)0, (int32_t)0)) word;
typedef word mask __attribute__((vector_size(BYTES))); /* of a comparison: all bits or none */
typedef uint8_t index_vec __attribute__((vector_size(BYTES / sizeof(REAL)), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif
#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Keeps a compiler from reading a number again for each of its uses. */
#if defined(__AVX512F__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif
