"""First on PYTHONPATH where torchvision was built for CUDA and PyTorch was not: its operators are declared, not run.

vLLM imports torchvision's Python code to look at model classes; without its own library that fails at the registration
of a fake `nms`. Nothing here or in vLLM's CPU path calls these operators.
"""

import importlib.util

if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
    import torch

    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
