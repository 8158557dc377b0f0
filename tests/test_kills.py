import sys
from pathlib import Path

import pytest

from tests.kills import OPTIONS, kills


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_a_training_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    count = kills(25, 1, tmp_path)
    assert count["killed"] == 25
    assert count["runs finished and equal"] >= len(OPTIONS)
