"""Learning: the loops that all methods share.

Read `fitting` (what a method is given and gives back), then `tuning` (the collaborative
loop) and `search` (the loop of the searches); `progress` is the checkpoint of both,
`judging` what an outcome is worth beside its accuracy and elsewhere.
What comes in is a box, the shots and a configuration, never the test split.
"""
