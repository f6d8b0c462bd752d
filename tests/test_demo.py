"""tgsr demo: one folder, one world, one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.miniature import demo


def test_a_demo_that_was_stopped_does_not_go_on_with_another_seeds_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its questions are kept from start to start: another seed's, or world's, would be trained on them."""

    def stopped(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_digit_questions", stopped)
    cache = FeatureCache(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo.demo(tmp_path / "demo", cache, seed=0)
    with pytest.raises(RunError, match="begun with --world digits --seed 0, not --world digits --seed 1"):
        demo.demo(tmp_path / "demo", cache, seed=1)
    with pytest.raises(RunError, match="not --world english --seed 0"):
        demo.demo(tmp_path / "demo", cache, world="english")
