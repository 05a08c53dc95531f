"""A box over HTTP. Read `app`, the doors; then `accounts`, who may ask and what it costs them,
and `worker`, the one thread in which the model answers.
"""
