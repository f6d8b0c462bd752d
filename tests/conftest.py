"""What several test files share."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's library reads it: no test asks the network
# Before torch is loaded: the threads of two processes on two cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tgsr.errors import FetchError
from tgsr.models.packaged_weights import ENCODER_FILE, cache_folder, load_encoder


@pytest.fixture(scope="session")
def encoder() -> dict[str, np.ndarray]:
    """Whisper base's encoder from the cache; tests never download: without it they are skipped, by name."""
    path = cache_folder() / ENCODER_FILE
    if not path.exists():
        pytest.skip(f"{path} is not there: `make fetch` downloads it, once")
    try:
        return load_encoder()
    except FetchError as error:
        pytest.skip(str(error))
