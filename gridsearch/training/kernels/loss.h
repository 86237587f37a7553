/* How a lane's loss is computed, as `loss.py` writes it down. */

#pragma once

#include "vectors.h"

struct loss_recipe {
  REAL smoothing;      /* of labels */
  REAL gamma;          /* of the focal loss; 0 for cross-entropy */
  const REAL *weights; /* of each class; NULL where all count alike */
};
