"""How fast the metrics are beside the official tools, and that both find the same: of images, videos and language.

    pip install -e '.[captions]'
    pip install --no-deps --target OFFICIAL cityscapesScripts pyquaternion trackeval opencv-python-headless \\
        scikit-image lazy-loader
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics            # all three parts
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics --quick    # a minute: shows that they run, measures nothing
    python -m benchmarks.metrics video --frames 50              # one part, with options of its own

What each part measures is said in `metrics_images.py`, `metrics_video.py` and `metrics_language.py`.
"""

import argparse
from collections.abc import Sequence

from benchmarks import metrics_images, metrics_language, metrics_video

PARTS = {"images": metrics_images.main, "video": metrics_video.main, "language": metrics_language.main}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="all of them without")
    arguments, options = parser.parse_known_args(words)
    for part in [arguments.part] if arguments.part else PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
