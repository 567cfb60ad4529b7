"""`make soak`, shorter: every interpreter, some of the faults, small windows."""

import pytest
from tests.soak import Options, Soak


@pytest.mark.slow
def test_through_random_faults_each_window_arrives_once_or_is_reported_and_memory_stays(tmp_path):
    soak = Soak(Options(devices=6, windows=15, most_samples=128), tmp_path / "data")
    soak.run()
    assert soak.verdict() == []
    assert soak.found.captured >= soak.total == 90
    assert soak.service.refused["503"] > 0
