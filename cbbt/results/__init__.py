"""Results: records in, tables and figures out, without torch, a model or a data set.

Read `records` and `tables`, then `statistics` (paired differences and tests), `formatting`
(tables as text), `findings` (a sentence for each figure), `choice` (of settings, on
validation), `peers`, `plus`, `generalisation` and `published`; the figures are in `plots/`,
one function each. The only input is tables of runs.
"""
