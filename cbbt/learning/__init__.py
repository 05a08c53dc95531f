"""Learning: the loops that all methods share.

Read `fitting` (a method's input and output), then `tuning` (the collaborative loop) and
`search` (the loop of the searches); `progress` is the checkpoint of both, `judging` the
calibration of a fitted classifier and its scores on other test sets.
The input is a box, the shots and a configuration, never the test split.
"""
