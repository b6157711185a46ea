from functools import cache

import pytest
from script_runs import finish_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return the finished run of a script by its name; each is run once."""
    return cache(lambda name: finish_run(name, tmp_path_factory.mktemp(name)))
