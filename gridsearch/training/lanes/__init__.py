"""Packs as one program: K trials of a group train as K lanes, by stacked layers or by vmap.

Stands behind the same seam as the plain engine (`training.context`).  Modules, in the order of the flow:
`rewrite` (a model's graph to instructions, with the layers of `products` and `layers`), which `stage` runs there and
back; `network` (that, or vmap); `storage` (all lanes' weights as rows of one buffer); `optimizers`; `averages`;
`inputs` (one batch for all lanes, or one for each); `losses`; `program` (steps, epochs, refill); `engine` (a pack's
lanes and their events).
"""
