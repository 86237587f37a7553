"""Training stands between the executors and the store: it takes a pack of trials and yields their events.

The names below are loaded on first use, so that importing this package does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
