"""Lets `import torchvision` work where its C++ operators can't be loaded (its CUDA wheel beside a CPU build of torch).

Copied into the site-packages of the tests' vLLM environment and imported there at every start (Makefile). vLLM's
processors use torchvision's transforms only; the operators that are declared here are never called.
"""

from __future__ import annotations

import importlib.abc
import sys
from contextlib import suppress

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _OPERATORS:
            with suppress(RuntimeError):
                library.define(operator)
        sys.ocrfleet_torchvision = library  # type: ignore[attr-defined]  # kept: what it declares is gone with it


sys.meta_path.insert(0, _BeforeTorchvision())
