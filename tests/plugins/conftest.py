import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def forget_users_modules():
    """What users' files leave in this process."""
    from fedray.scenario import plugins

    yield
    for name in plugins._finder.modules:
        sys.modules.pop(name, None)
    plugins._finder.modules.clear()
    plugins._beside.clear()
