"""Packs as one program: K trials of a group train as K lanes, by stacked layers or by vmap.

Implements the same protocol as the plain engine (`training.context.Engine`).

`compile` makes a network of all lanes: `tracing` (a model's graph), `rewrite` with its `rules` (the graph to
instructions for K lanes, whose layers are in `runtime.products` and `runtime.stacked_layers`), `compiled_graph` (runs
them forwards and backwards), `network` (that, or vmap), `agreement` and `network_choice` (which of them, checked
against the models).

`runtime` trains with it: `storage` (all lanes' weights as rows of one buffer), `optimizers`, `averages`, `inputs`
(one batch for all lanes, or one for each), `losses`, `program` (steps, epochs, refill), `engine` (a pack's lanes and
their events).
"""
