"""Tasks and their images: benchmarks, folders of one's own, embedded tasks.

Read `task` first, then `cards` (the table of benchmarks), `benchmarks` and `folders`
(how they are read) and `load` (`load_task`, the door to all); `features` and `pixels`
turn images into what methods learn from, through the box. Beside them `augment`,
`feature_cache`, `check` (what is on disk), `download`, `torchvision_splits`, `cached_shots`.
"""
