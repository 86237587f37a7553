"""From why lanes of a model cannot train in the fastest way to what its author can change.

Stands between the modules that refuse a model, each in its own words, and `method`, which tells a user.  A reason
without an entry stands alone: it says what there is, and nothing is known that would help.
"""

from __future__ import annotations

import re
from typing import Final

_BUFFER: Final = "keep tensors by self.register_buffer(NAME, tensor), or make them in forward()"
_STATE: Final = (
    "compute it anew in each call, or keep it as a tensor by self.register_buffer and change that in place"
)
_ALIKE: Final = (
    "let the model's code depend on its arguments alone, and make every layer and tensor anew in each call"
)

_REMEDIES: Final = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"hooks on all modules", "remove what torch.nn.modules.module.register_module_... has set, as profilers do"),
        (r"has a hook on its gradient", "use clip_norm or clip_value in place of such a hook"),
        (r" has hooks$", "do in forward() what its hooks (register_forward_hook, ...) do, or leave them out"),
        (r" is scripted$", "build it without torch.jit.script"),
        (r" is compiled$", "build it without torch.compile"),
        (r"has its own (train|eval)\(\)", "override neither: look at self.training in forward()"),
        (r"has its own \w+\(\)", "move what this method does into __init__() or forward()"),
        (r"has another \w+\(\) than its class", "define it in a class in place of setting it on the object"),
        (r"whose forward\(\) was replaced", "derive a class from it in place of replacing its forward()"),
        (r"rescales its weights", "leave out max_norm"),
        (r"is a .* of layout", "use plain dense parameters and buffers"),
        (r"computes with other weights than its parameters", "assign recurrent layers' parameters by load_state_dict"),
        (r"that is part of another$", "clone() it, or take the part in forward()"),
        (r"keeps a tensor", _BUFFER),
        (r"has the memory of", "tie them as one parameter of two names, clone() one, or take the view in forward()"),
        (r"none of its sub-modules$", "make it an attribute of a module, or put it into nn.ModuleList"),
        (r"deeper than is looked$|may keep state of its own$", "keep plain values: numbers, texts, lists, dicts"),
        (r"draws random numbers in evaluation", "draw only `if self.training`"),
        (r"draws random numbers|decides by numbers that it draws|: it draws random", (
            "draw by nn.Dropout or torch.rand, only in training, and choose by torch.where in place of `if`"
        )),
        (r"drops values in evaluation", "give functional.dropout training=self.training"),
        (r"keeps state of its own|keep state, outside of torch", _STATE),
        (r"inside torch.utils.checkpoint does", "leave the norm outside of the checkpoint, or the checkpoint out"),
        (r"changes its weights, or replaces its tensors", "change only buffers, in place, under torch.no_grad()"),
        (r"its forward (asks|uses) ", "leave it out of forward(): what it gives may differ from call to call"),
        (r"its weights are torch\.", "leave them as float32; dtype=bfloat16 sets the arithmetic"),
        (r"share tensors$|are not alike$|train different parameters$", _ALIKE),
        (r"none of its parameters gets a gradient", "look for detach(), .data or torch.no_grad() in its forward()"),
        (r"decides how long", "multiply by a mask, or choose by torch.where, in place of taking a part"),
        (r"depends on the batch|be that of the batch", (
            "use x.flatten(1) or sizes from x.shape[1:], and torch.where in place of `if`"
        )),
        (r"torch\.fx cannot trace it", "use torch.where in place of `if` and of loops over what tensors hold"),
        (r"takes more than the images", "let forward() have no argument without a default beside the images"),
        (r"gradients switched off", "freeze parameters by requires_grad_(False) in __init__() instead"),
        (r"autocast contexts", "leave them out; dtype=bfloat16 sets the arithmetic"),
    )
)  # fmt: skip


def with_remedy(reason: str) -> str:
    """Return why a model's lanes do not train in a better way, and how to change that where it is known."""
    found = next((remedy for pattern, remedy in _REMEDIES if pattern.search(reason)), "")
    return f"{reason}. To change that: {found}" if found else reason
