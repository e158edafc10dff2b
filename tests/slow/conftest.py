"""What several slow checks use."""

import pytest
from lab_and_browser import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser
