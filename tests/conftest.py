"""What several test files share."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's library reads it: no test asks the network
# Before torch is loaded: the threads of two processes on two cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from tgsr.errors import FetchError
from tgsr.models.packaged_weights import ENCODER_FILE, cache_folder, load_encoder

# Tests' folders lie in memory where there is room: on a disk, each file that is written whole is waited for.
IN_MEMORY, ROOM = Path("/dev/shm"), 4e9  # bytes; all tests together leave one
if IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))

# No bound on time, which a busy machine would miss; and the same examples each time, so that what passed passes.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


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


@pytest.fixture(scope="session")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 s at 44.1 kHz, one voice a channel."""
    path = tmp_path_factory.mktemp("sound") / "stereo.wav"
    rng = np.random.default_rng(4)
    soundfile.write(path, 0.1 * rng.standard_normal((66_150, 2)), 44_100)
    return path
