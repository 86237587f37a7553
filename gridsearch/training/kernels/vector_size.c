/* How many numbers a vector of this machine has. */

#include "vectors.h"

ptrdiff_t vector_numbers(void) { return V; }
