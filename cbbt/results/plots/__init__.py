"""The figures: a tidy table in, a matplotlib figure out; seaborn draws the statistics.

Read `style` (the theme of all, and the one way to save) and `parts`, then `accuracy`,
`comparison` and `peers` (who leads at which price); `estimator`, `gradients` and `answers` draw what
notebooks 2a and 2b measure, `generalisation`, `plus`, `speed` and `ablation` what 7, A3, A4 and A5 read
or measure, `rates` and `benchmarks` what A3 and A7 do, `diagram` the method, `pictures` images that the caller opened,
`predictions` what a fitted model answers.
"""
