import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def trained_on_the_cpu(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test may have trained on a GPU
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
