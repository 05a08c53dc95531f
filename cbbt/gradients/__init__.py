"""Gradients from losses, and how good they are.

Read `estimators` and `directions`, then `linearised`, which keeps whole answers; `theory` has errors
in closed form, `analysis`, `landscape`, `noise` and `answers` measure them through the white box. What comes
in is a function context → loss or answer, and in the last four a box and a task's images.
"""
