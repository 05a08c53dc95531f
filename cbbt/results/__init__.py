"""Results: records in, tables and figures out, without torch, a model or a data set.

Read `records` and `tables`, then `statistics` (what differences are worth), `formatting`
(tables as text), `findings` (a sentence for each figure), `choice` (of settings, on
validation), `peers`, `plus`, `generalisation` and `published`; the figures are in `plots/`,
a function each. The input is tables of runs, and nothing else.
"""
