"""The figures: a tidy table in, a matplotlib figure out; seaborn draws the statistics.

Read `style` (the theme, and how figures are saved) and `parts`, then `accuracy`, `comparison`
and `peers` (accuracy against cost); `estimator`, `gradients` and `answers` draw the measurements of
notebooks 2a and 2b, `generalisation`, `plus`, `speed` and `ablation` the tables of 7, A3, A4 and A5,
`rates` and `benchmarks` those of A3 and A7, `diagram` the method, `pictures` images that the caller
opened, `predictions` the predictions of a fitted model.
"""
