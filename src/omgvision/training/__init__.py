"""Training: recipes, the loop, and what `omg train` calls."""

from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage, override

__all__ = ["ObjectiveSettings", "OptimizerSettings", "Recipe", "Stage", "override"]
