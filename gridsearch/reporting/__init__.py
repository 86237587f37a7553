"""From a study's data to what people and scripts read: ranking, JSON, tables, figures, page, TensorBoard.

Importing this package imports none of pandas, matplotlib, seaborn, jinja2, rich, tensorboard: a name is found
when it is first asked for (PEP 562), and the functions import what they draw with.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
