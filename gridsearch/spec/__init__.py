"""First stage of the flow: what was written becomes a checked `StudySpec`, and that becomes trials.

The names are lazy (PEP 562): the axes' table and the grid need no pydantic, and `--help` needs neither.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
