"""Tensors on disk as safetensors files, whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tgsr.disk.whole import StrPath, whole


def write_tensors(
    path: StrPath, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors as `whole` does, with its errors: safetensors has one of its own for a full disk."""
    with whole(path) as half:
        try:
            save_file(dict(tensors), half, metadata=dict(metadata) if metadata is not None else None)
        except SafetensorError as error:
            if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code)) from error
