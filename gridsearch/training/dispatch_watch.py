"""What watches torch's operators as they are dispatched, without torch's compiler.

Below all that does: a subclass of torch's own class would import the compiler at its first operator, which takes
seconds and 80 MB of each worker.
"""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Sees each operator of a `with` block, in `__torch_dispatch__`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing is compiled here."""
        return False
