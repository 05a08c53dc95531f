"""The figures: a tidy table in, a matplotlib figure out; seaborn draws the statistics.

Read `style` (the theme of all, and the one way to save) and `parts`, then `accuracy`,
`comparison` and `peers` (who leads at which price); `generalisation`, `gradients`, `plus`,
`speed` and `ablation` draw what notebooks 7, 2, A3, A4 and A5 measure or read, `rates` and
`benchmarks` what A3 and A7 do, `diagram` the method, `pictures` images that the caller opened,
`predictions` what a fitted model answers.
"""
