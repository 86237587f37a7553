"""A skorch callback that notes when a net trained and how many steps it made."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from skorch.callbacks import Callback


class Mark(Callback):
    """Writes one note a net into a folder; it imports by name, so that scikit-learn's workers find it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_begin(self, *_, **__) -> None:
        self.began_ = time.time()

    def on_train_end(self, net, *_, **__) -> None:
        note = {
            "batch": net.batch_size,
            "lr": net.lr,
            "began": self.began_,
            "ended": time.time(),
            "steps": sum(len(epoch["batches"]) for epoch in net.history),
        }
        (Path(self.folder) / f"{uuid.uuid4().hex}.mark.json").write_text(json.dumps(note))
