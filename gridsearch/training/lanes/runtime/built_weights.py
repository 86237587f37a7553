"""The weights that a plan's layers have computed from parameters: their memory, and the calls that compute them.

Stands between their programs and `built_plan`, of which it is a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels.op import OpArgs
from gridsearch.training.kernels.weight_programs import CompiledProgram, Instruction, Memory, What
from gridsearch.training.lanes.compile.arena import place_pieces

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gridsearch.training.lanes.compile.derived_weights import WeightPrograms

Calls = list[tuple[Any, OpArgs]]


class BuiltWeights:
    """Weights that are computed before a pass, and their parameters' gradients after it.

    Args:
        programs: how.
        dtype: of all numbers.

    Attributes:
        tensors: each weight's numbers, by its name.
        gradients: likewise its gradient's; None where it has none.
        parameters: names of those whose gradients it computes.
        calls: before a forward pass in training, before evaluation, and at the end of the backward pass.
    """

    def __init__(self, programs: WeightPrograms, dtype: torch.dtype) -> None:
        self._programs, self._dtype = programs, dtype
        training = programs.training
        self.tensors = {name: torch.zeros(count, dtype=dtype) for name, count in training.weights.items()}
        self.gradients = {
            name: torch.zeros_like(own) if name in training.trained else None
            for name, own in self.tensors.items()
        }
        self.parameters = tuple(training.gradients)
        self.calls: tuple[Calls, Calls, Calls] = [], [], []
        self._kept: list[object] = []

    def build(self, gradients: Mapping[str, int], summed: Collection[str]) -> list[tuple[str, int]]:
        """Make the calls, and return the names of a lane's tensors, each with the place of a pointer to it.

        Args:
            gradients: address of each parameter's gradient.
            summed: names of the parameters whose gradients other operations write before.
        """
        training, evaluation = self._programs.training, self._programs.evaluation
        ends = [pair[name in summed] for name, pair in training.gradients.items()]
        forward, backward = list(training.forward), [*training.backward, *ends]
        places = self._places(forward, backward, gradients)
        pointers = []
        for calls, instructions, own in (
            (self.calls[0], forward, places),
            (self.calls[1], list(evaluation.forward), self._places(list(evaluation.forward), [], {})),
            (self.calls[2], backward, places),
        ):
            program = CompiledProgram(instructions, own, self._dtype)
            args = OpArgs(constants=program.constants)
            calls.append((program.function, args))
            self._kept += [program, args]
            pointers += [each for what in (What.PARAMETER, What.BUFFER) for each in program.pointers(what)]
        return pointers

    def _places(
        self, forward: Sequence[Instruction], backward: Sequence[Instruction], gradients: Mapping[str, int]
    ) -> dict[Memory, int]:
        """Return each memory's address, 0 for those of lanes; temporary ones share what is free meanwhile."""
        times: dict[Memory, tuple[int, int]] = {}
        for time, one in enumerate([*forward, *backward]):
            for operand in one.operands:
                first, _ = times.get(operand.memory, (time, time))
                times[operand.memory] = first, time
        size = self._dtype.itemsize
        passing = [memory for memory in times if memory.what is What.TEMPORARY]
        places, total = place_pieces([(memory.numbers * size, *times[memory]) for memory in passing])
        block = torch.full(
            (total // size + 1,), torch.nan, dtype=self._dtype
        )  # nothing is read before it is written
        self._kept.append(block)
        found = {memory: block.data_ptr() + at for memory, at in zip(passing, places, strict=True)}
        for memory in times:
            match memory.what:
                case What.WEIGHT:
                    found[memory] = self.tensors[memory.name].data_ptr()
                case What.WEIGHT_GRADIENT:
                    own = self.gradients[memory.name]
                    assert own is not None
                    found[memory] = own.data_ptr()
                case What.GRADIENT:
                    found[memory] = gradients[memory.name]
                case What.CONSTANT:
                    content = torch.tensor(memory.content, dtype=self._dtype)
                    self._kept.append(content)
                    found[memory] = content.data_ptr()
                case What.PARAMETER | What.BUFFER:
                    found[memory] = 0
        return found
