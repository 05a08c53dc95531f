"""Gradients from losses, and how good they are.

Read `estimators` and `directions`; `theory` has their errors in closed form, `analysis`
and `noise` measure them through the white box. What comes in is a function
context → loss, and in the last two a box and a task's images.
"""
