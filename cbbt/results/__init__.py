"""Results: records in, tables and figures out, without torch, a model or a data set.

Read `records` and `tables`, then `statistics` (what differences are worth), `formatting`
(tables as text), `choice` (of settings, on validation), `peers`, `plus`, `generalisation` and `published`; the
figures stand in `plots/`, a function each. Tables of runs come in, and nothing else.
"""
