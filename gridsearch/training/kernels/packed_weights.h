/* Weights in the order in which a product reads them.
 *
 * A product's tile has some columns: outputs forwards, inputs for the gradient of the input.  All numbers of a row and tap
 * then lie beside each other, where torch has them far apart.  So as many taps (of 1x1 convolutions: rows) of each column
 * as a vector has are read at once, and exchanged with the columns. */

#pragma once

#include "channel_gradients.h"

/* Where the weights of some tiles come from and go to. */
struct packing {
  const REAL *end;                            /* of all weights */
  ptrdiff_t rows, columns, by_row, by_column; /* by: numbers from one to the next */
  ptrdiff_t taps;                             /* that a weight has */
  ptrdiff_t used;                             /* of them */
  const ptrdiff_t *tap;                       /* which those are */
  const ptrdiff_t *place;                     /* of each tap: where its first row goes, or -1 for nowhere */
  ptrdiff_t packed_rows;                      /* words where two rows share one */
};

/* Some rows of a tile, number by number; what is not there is zero. */
INLINE void pack_slowly(const struct packing *k, const REAL *restrict from, ptrdiff_t there, ptrdiff_t first,
                        REAL *restrict to, const int n, const int each) {
  for (ptrdiff_t r = first; r < k->packed_rows; r++) {
    const REAL *row = from + (r + 8) * each * k->by_row + k->tap[0]; /* rows may be pages apart */
    for (int j = 0; j < n; j++) __builtin_prefetch(row + j * k->by_column);
    for (ptrdiff_t u = 0; u < k->used; u++) {
      const REAL *number = from + r * each * k->by_row + k->tap[u];
      REAL *packed = to + k->place[k->tap[u]] + r * n;
      if (each == 1 && there >= n && r < k->rows)
        UNROLL for (int j = 0; j < n; j++) packed[j] = number[j * k->by_column];
      else
        for (ptrdiff_t j = 0; j < n; j++, number += k->by_column) {
          const REAL low = j < there && r * each < k->rows ? *number : 0;
          const REAL high = each == 2 && j < there && r * 2 + 1 < k->rows ? number[k->by_row] : 0;
          packed[j] = each == 2 ? word_of(low, high) : low;
        }
    }
  }
}

/* V numbers beside each other of each of n columns, as V vectors of n columns. */
INLINE void read_columns(const REAL *from, ptrdiff_t by_column, const int n, vec *to) {
  UNROLL for (int j = 0; j < V; j++) to[j] = (vec){0};
  UNROLL for (int j = 0; j < n; j++) to[j] = *(const unaligned_vec *)(from + j * by_column);
  exchange(to);
}

/* A tile of n columns.  Vectors are written whole: what they have behind n numbers is written again by the next row. */
INLINE void pack_tile_of(const struct packing *k, const REAL *restrict from, ptrdiff_t there, REAL *restrict to,
                         const int n, const int each) {
  const ptrdiff_t last = (n - 1) * k->by_column, ahead = (k->by_row > k->by_column ? 8 : 16) * k->by_row;
  ptrdiff_t most = MIN(k->rows / each, k->packed_rows - CEIL_DIV(V, n) + 1), r = 0;
  if (n < 3 || n > V || there < n || 3 * k->used < k->taps) most = 0;
  if (k->taps == 1 && k->by_row == 1)
    for (; r + V / each <= most && from + r * each + last + V <= k->end; r += V / each) {
      vec numbers[V];
      read_columns(from + r * each, k->by_column, n, numbers);
      for (int i = 0; i < V / each; i++)
        *(unaligned_vec *)(to + (r + i) * n) = each == 2 ? words(numbers[2 * i], numbers[2 * i + 1]) : numbers[i];
    }
  else if (k->taps > 1)
    for (; r < most; r++) {
      const REAL *row = from + r * each * k->by_row;
      ptrdiff_t t = 0;
      if (row + (each - 1) * k->by_row + last + CEIL_DIV(k->taps, V) * V > k->end) break;
      for (int i = 0; i < each; i++) /* rows may be pages apart */
        for (int j = 0; j < n; j++) __builtin_prefetch(row + i * k->by_row + j * k->by_column + ahead);
      for (; t < k->taps; t += V) {
        vec numbers[V], second[V];
        if (t + 2 >= k->taps) break; /* so few that numbers are faster */
        read_columns(row + t, k->by_column, n, numbers);
        if (each == 2) read_columns(row + k->by_row + t, k->by_column, n, second);
        for (int i = 0; i < MIN(V, k->taps - t); i++)
          if (k->place[t + i] >= 0)
            *(unaligned_vec *)(to + k->place[t + i] + r * n) = each == 2 ? words(numbers[i], second[i]) : numbers[i];
      }
      for (; t < k->taps; t++)
        if (k->place[t] >= 0)
          UNROLL for (int j = 0; j < n; j++) {
            const REAL *number = row + t + j * k->by_column;
            to[k->place[t] + r * n + j] = each == 2 ? word_of(*number, number[k->by_row]) : *number;
          }
    }
  pack_slowly(k, from, there, r, to, n, each);
}

/* Tiles of n columns whose numbers lie beside each other, [tiles][rows][n].  Some rows are taken at a time, so that a line
 * of memory is read once. */
INLINE void pack_columns_of(const struct packing *k, const REAL *restrict from, REAL *restrict to, const int n,
                            const int each) {
  enum { SOME = 16 };
  const ptrdiff_t most = n < 3 || n > V ? 0 : MIN(k->rows / each, k->packed_rows - CEIL_DIV(V, n) + 1);
  for (ptrdiff_t first = 0; first < k->packed_rows; first += SOME)
    for (ptrdiff_t o = 0; o < k->columns; o += n) {
      REAL *packed = to + o * k->packed_rows + first * n;
      const REAL *number = from + first * each * k->by_row + o;
      const ptrdiff_t there = MIN(n, k->columns - o), end = MIN(first + SOME, k->packed_rows);
      for (ptrdiff_t r = first; r < end; r++, packed += n, number += each * k->by_row) {
        const REAL *second = number + (each - 1) * k->by_row;
        if (r < most && there == n && second + V <= k->end) {
          const vec low = *(const unaligned_vec *)number, high = *(const unaligned_vec *)second;
          *(unaligned_vec *)packed = each == 2 ? words(low, high) : low;
          continue;
        }
        for (int j = 0; j < n; j++) {
          const REAL high = each == 2 && r * 2 + 1 < k->rows && j < there ? second[j] : 0;
          packed[j] = j >= there ? 0 : each == 2 ? word_of(number[j], high) : number[j];
        }
      }
    }
}

/* Packs some tiles of n columns, [tiles][taps][rows][n]; narrows: two rows share a word. */
static void pack_tiles(const struct packing *k, const REAL *from, ptrdiff_t columns, REAL *to, ptrdiff_t n, int narrows) {
#define PACK_TILE(COLUMNS, PIXELS)                                                                                   \
  case COLUMNS:                                                                                                      \
    if (narrows)                                                                                                     \
      pack_tile_of(k, from, columns, to, COLUMNS, 2);                                                                \
    else                                                                                                             \
      pack_tile_of(k, from, columns, to, COLUMNS, 1);                                                                \
    break;
#define PACK_COLUMNS(COLUMNS, PIXELS)                                                                                \
  case COLUMNS:                                                                                                      \
    if (narrows)                                                                                                     \
      pack_columns_of(k, from, to, COLUMNS, 2);                                                                      \
    else                                                                                                             \
      pack_columns_of(k, from, to, COLUMNS, 1);                                                                      \
    break;
  if (k->taps == 1 && k->by_column == 1) {
    switch (n) { TILES(PACK_COLUMNS) }
  } else {
    switch (n) { TILES(PACK_TILE) }
  }
}

/* Packs weights [outputs][inputs of a group][taps] for a product: forwards, or turned for the gradient of the input.
 * For winograd.h each tile is transformed as soon as it is packed, while it is in the core's own cache. */
static void pack(const struct shapes *s, const struct product *p, const REAL *restrict w, const REAL *bias,
                 const struct workspace *work, int turned) {
  const ptrdiff_t own = s->channels / s->groups, out = s->outputs / s->groups, n = p->channels;
  const ptrdiff_t rows = turned ? out : own, columns = turned ? own : out, padded = packed_outputs(p, columns);
  const int narrows = p->narrows && !p->patches; /* else words are made of what is transformed: of two planes */
  const ptrdiff_t planes = p->narrows && p->patches ? 2 : 1, packed_rows = words_of(p, rows);
  const ptrdiff_t whole = s->whole[0] * s->whole[1], of_tile = taps(s) * packed_rows * n;
  ptrdiff_t place[whole], tap[whole], used = 0;
  for (ptrdiff_t t = 0; t < whole; t++) {
    const ptrdiff_t r = t / s->whole[1] - s->first[0], c = t % s->whole[1] - s->first[1];
    const int inside = r >= 0 && r < s->kernel[0] && c >= 0 && c < s->kernel[1];
    /* turned: the columns of taps backwards, as they then lie beside each other in the map */
    place[t] = inside ? (r * s->kernel[1] + (turned ? s->kernel[1] - 1 - c : c)) * packed_rows * n : -1;
    if (inside) tap[used++] = t;
  }
  struct packing k = {.end = w + s->outputs * own * whole,
                      .rows = CEIL_DIV(rows, planes),
                      .columns = columns,
                      .by_row = planes * (turned ? own * whole : whole),
                      .by_column = turned ? whole : own * whole,
                      .taps = whole,
                      .used = used,
                      .tap = tap,
                      .place = place,
                      .packed_rows = packed_rows};
  const int at_once = whole == 1 && k.by_column == 1;
  REAL *restrict to = p->patches ? work->packed : work->weights, *biases = work->bias;
  for (ptrdiff_t g = 0; g < s->groups; g++) {
    const REAL *from = w + g * out * own * whole;
    for (ptrdiff_t o = 0; o < padded; o += at_once ? padded : n) {
      const REAL *tile = from + o * k.by_column;
      pack_tiles(&k, tile, columns - o, to, n, narrows);
      if (!p->patches) {
        to += at_once ? CEIL_DIV(columns, n) * of_tile : of_tile;
        continue;
      }
      if (planes == 2) { /* odd rows */
        struct packing odd = k;
        odd.rows = rows / 2;
        pack_tiles(&odd, tile + k.by_row / 2, columns - o, to + of_tile, n, 0);
      }
      transform_weights(to, planes == 2 ? to + of_tile : 0, packed_rows * n, work->weights + o * packed_rows,
                        weights_step(p, packed_rows, columns), turned);
    }
    for (ptrdiff_t o = 0; o < padded; o++) biases[g * padded + o] = bias && o < columns ? bias[g * columns + o] : 0;
  }
  if (p->patches) memset(work->no_bias, 0, sizeof(REAL) * padded);
}
