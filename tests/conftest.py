"""Options and fixtures of the whole suite."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out cargo, formatters and linters")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out by --fast")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fast"):
        skip = pytest.mark.skip(reason="left out by --fast")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def restore_threads():
    """Puts the number of threads back to what it was."""
    import flambeau

    before = flambeau.get_num_threads()
    yield
    flambeau.set_num_threads(before)
