import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def forget_users_modules():
    """What users' files leave in this process: modules, and folders on the path."""
    from fedray.scenario import plugins

    path, modules, loaded = list(sys.path), set(sys.modules), dict(plugins._loaded)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("my_", "stranger")):
            del sys.modules[name]
    plugins._loaded.clear()
    plugins._loaded.update(loaded)
