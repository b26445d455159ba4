"""Files for people to fetch: in one temporary folder, the oldest go first."""

import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path

from ..results import Result


class Downloads:
    """Writes results below `folder`, each into a folder of its own with a name that cannot be guessed."""

    def __init__(self, folder: Path, *, keep: int = 32) -> None:
        self._folder, self._keep = folder, keep
        self._lock = threading.Lock()
        self._written: deque[Path] = deque()

    def write(self, result: Result) -> list[str]:
        """Overlay, maps and JSON of a result."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        paths = result.save(folder, stem="")
        with self._lock:
            self._written.append(folder)
            while len(self._written) > self._keep:
                shutil.rmtree(self._written.popleft(), ignore_errors=True)
        return [str(path) for path in paths]
