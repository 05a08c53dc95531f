"""Runs: a configuration in, a record out; grids of them.

Read `config` and `experiment`, then `grid` (the batch), `report` (its outcome) and
`merging`. `workbench` holds what runs share, `gpus` assigns the GPUs of a machine, and
`estimator_comparison` trains with one gradient estimator after another. This room may
import all rooms below; only `cbbt.cli` imports it.
"""
