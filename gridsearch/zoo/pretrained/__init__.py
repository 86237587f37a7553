"""Networks of timm and torchvision as models: `timm:NAME`, `torchvision:NAME`, with their published weights.

Between a locator and the networks of these packages.  Importing this package imports neither them nor torch.
"""

from gridsearch.zoo.pretrained.model_lookup import open_model
from gridsearch.zoo.pretrained.pretrained_model import PretrainedModel, frozen_of

__all__ = ["PretrainedModel", "frozen_of", "open_model"]
