"""Metrics, each with `update`, `compute` and `merge`; they know arrays, not models."""

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.click_iou import ClickIoU, next_click
from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.panoptic_quality import PanopticQuality

__all__ = ["AveragePrecision", "ClickIoU", "MeanIoU", "PanopticQuality", "PerSample", "next_click"]
