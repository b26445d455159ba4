"""Predictions in the official file formats → numbers: one file a metric, each with a function `score`."""
