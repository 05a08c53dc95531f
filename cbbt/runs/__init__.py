"""Runs: a configuration in, a record out; grids of them.

Read `config` and `experiment`, then `grid` (the batch), `report` (what it ends with) and
`merging`. `workbench` is what runs share, `gpus` shares the GPUs of a machine, and
`estimator_comparison` trains with one gradient estimator after another. Everything below
may be used here; of the package only `cbbt.cli` uses this.
"""
