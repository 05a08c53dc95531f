"""Tasks and their images: benchmarks, user folders, embedded tasks.

Read `task` first, then `cards` (the table of benchmarks), `benchmarks` and `folders`
(how they are read), `names` (of their classes) and `load` (`load_task`, for all of
them); `images`, `features` and `pixels` turn files into what methods learn from, through
the box; `targets` and `shifts` give further test sets for a fitted model. Further modules: `augment`,
`feature_cache`, `check` (what is on disk), `download`, `torchvision_splits`, `cached_shots`.
"""
