/* How a plan calls an operation: of one lane, in its part of a step.
 *
 * A plan is the program of one lane.  It takes several steps of a lane in a row, then of the next one, in one arena of
 * memory that all lanes use in turn: a lane's activations, weights and optimizer state stay in the core's own cache, and
 * an operation knows nothing of lanes.  What a call reads of the arena was written in the same step: it still holds
 * what the lane before has left there.
 *
 * A library exports of these what it has:
 *
 *   void forward(const struct op_args *);   in training: writes y and saved, moves running statistics
 *   void infer(const struct op_args *);     in evaluation: writes y; saved is NULL
 *   void backward(const struct op_args *);  writes gx (or adds to it) and grads; may read x, y, params, saved, and
 *                                           overwrite gy
 *
 * Pointers into the arena begin where a vector may, and vectors may touch SLACK bytes behind their end.  Parameters and
 * gradients are parts of larger buffers: nothing beyond them may be touched, for it may be another lane's.  Sums have a
 * fixed order: the same bytes each time.  Two inputs may be one and the same: `backward` writes the gradient of the last
 * input first, pixel by pixel, block by block or as a whole.
 *
 * Layouts of activations (`Layout` in op.py):
 *
 *   features        [images][F], with F = C * H * W in this order where they come from maps
 *   channels last   [images][H][W][C]
 *   batch inner     [blocks][H][W][C][V], or [blocks][F][V]: a vector has V images of a block.  The last block's places
 *                   beyond `images` hold what follows from images of zeros, and exactly 0 in gradients, which each
 *                   operation keeps up.  Features that were maps are in the order (c, h, w) everywhere.
 */

#pragma once

#include <stddef.h>

#define OP_INPUTS 3
#define OP_PARAMS 32
#define OP_BUFFERS 4

struct op_args {
  const void *x[OP_INPUTS];       /* inputs */
  void *y;                        /* output */
  const void *params[OP_PARAMS];  /* as torch has them, in the order of the operation's stages; NULL for none */
  void *buffers[OP_BUFFERS];      /* of batch norm: running mean and variance */
  void *saved;                    /* from `forward` to `backward` */
  void *workspace;                /* of this call alone */
  void *gy;                       /* gradient of y; `backward` may overwrite it */
  void *gx[OP_INPUTS];            /* where the gradient of each input goes; NULL where none is wanted */
  void *grads[OP_PARAMS];         /* likewise of each parameter */
  ptrdiff_t images;               /* of this batch */
  const void *constants;          /* the operation's own, the same at each call; NULL for none */
  int adds[OP_INPUTS];            /* whether gx[i] is added to what is there */
};
