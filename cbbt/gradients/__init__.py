"""Gradients from losses, and how good they are.

Read `estimators` and `directions`, then `linearised`, which uses whole answers; `theory` has errors
in closed form; `analysis`, `landscape`, `noise` and `answers` measure them through the white box. The input is
a function context → loss or answer; in the last four, a box and a task's images.
"""
