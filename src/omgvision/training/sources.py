"""Former names of a mixture and its parts, until the recipes use those of `omgvision.data`."""

from omgvision.data.mixture import Mixture as MixtureBatches
from omgvision.data.mixture import Source as Part
from omgvision.data.mixture import Subset

__all__ = ["MixtureBatches", "Part", "Subset"]
