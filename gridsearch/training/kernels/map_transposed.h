/* A transposed convolution of maps: the gradient of a convolution's input, as a layer.
 *
 * Shapes and weights are those of that convolution, from the maps of the result to those that come in. */

#pragma once

#include "map_products.h"

/* params: weights [channels in][channels out of a group][taps], which are the convolution's as they are, and biases */
void transposed_infer(const struct op_args *a) {
  const struct shapes *s = a->constants;
  struct workspace w;
  lay_out_workspace(s, a->workspace, &w);
  pack(s, &s->data, a->params[0], s->has_bias ? a->params[1] : 0, &w, 1);
  multiply_blocks(s, &s->data, a->x[0], &w, a->y, CEIL_DIV(a->images, V), 0);
}

void transposed_forward(const struct op_args *a) { transposed_infer(a); }

void transposed_backward(const struct op_args *a) {
  const struct shapes *s = a->constants;
  const ptrdiff_t blocks = CEIL_DIV(a->images, V), pixels = s->height * s->width;
  const int trains = a->grads[0] != 0;
  struct workspace w;
  lay_out_workspace(s, a->workspace, &w);
  double *bias = w.statistics;
  if (trains) memset(bias, 0, sizeof(double) * s->channels);
  if (a->gx[0]) pack(s, &s->sums, a->params[0], 0, &w, 0);
  for (ptrdiff_t b = 0; b < blocks; b += s->span) {
    const ptrdiff_t some = MIN(s->span, blocks - b);
    const vec *gy = (const vec *)a->gy + b * entered(s), *x = (const vec *)a->x[0] + b * convolved(s);
    if (trains) weight_gradients(s, gy, x, some, &w, b > 0);
    for (ptrdiff_t i = 0; trains && s->has_bias && i < some; i++)
      add_channel_sums(gy + i * entered(s), pixels, s->channels, &w, bias);
    if (a->gx[0]) multiply_blocks(s, &s->sums, gy, &w, (vec *)a->gx[0] + b * convolved(s), some, a->adds[0]);
  }
  if (!trains) return;
  unpack(s, &w, a->grads[0]);
  for (ptrdiff_t c = 0; s->has_bias && c < s->channels; c++) ((REAL *)a->grads[1])[c] = (REAL)bias[c];
}
