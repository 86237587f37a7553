from .context import TrainContext as TrainContext
from .device_choice import free_megabytes as free_megabytes
from .devices import (
    cuda_problem as cuda_problem,
    describe as describe,
    device_facts as device_facts,
    resolve_device as resolve_device,
    tune_allocator as tune_allocator,
)
from .folds import Folding as Folding
from .kernels import (
    can_compile as can_compile,
    damaged_kernels as damaged_kernels,
    kept_choices as kept_choices,
)
from .lanes.compile.method import method_of as method_of, try_out as try_out
from .loop import train_pack as train_pack
from .model_setup import check_model as check_model, has_dropout as has_dropout
from .own_code import check_augment as check_augment
from .own_optimizer import check_optimizer as check_optimizer
from .resident_data import ResidentCache as ResidentCache, ResidentData as ResidentData
from .splits import Split as Split, split as split
