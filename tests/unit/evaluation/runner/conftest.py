import pytest

import omgvision
from omgvision import Predictor


@pytest.fixture(scope="session")
def predictor(tiny_model_dir) -> Predictor:
    """The very small model; what it says is nonsense, always the same."""
    return omgvision.load(tiny_model_dir, device="cpu")
