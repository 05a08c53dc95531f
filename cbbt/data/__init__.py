"""Tasks and their images: benchmarks, folders of one's own, embedded tasks.

Read `task` first, then `cards` (the table of benchmarks), `benchmarks` and
`folders` (how they are read) and `load` (`load_task`, the door to all). Beside
them: `check` (what is on disk), `download`, `torchvision_splits`, `cached_shots`.
"""

from .cards import CARDS, Card
from .check import check_data
from .download import download_data
from .load import load_task
from .task import DataError, Item, Task, draw_shots, labels_of, split_digest

__all__ = [
    "CARDS",
    "Card",
    "DataError",
    "Item",
    "Task",
    "check_data",
    "download_data",
    "draw_shots",
    "labels_of",
    "load_task",
    "split_digest",
]
