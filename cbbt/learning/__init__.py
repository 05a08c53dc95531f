"""Learning: the loops that all methods share.

Read `fitting` (what a method is given and gives back), then `tuning` (the collaborative
loop) and `search` (the loop of the searches); `progress` is the checkpoint of both,
`judging` its calibration, and its accuracy on other test sets.
What comes in is a box, the shots and a configuration, never the test split.
"""
