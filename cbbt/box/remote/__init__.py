"""Boxes whose model is elsewhere.

Read `connection` (queries over HTTP, repeated while a server is away), then `served` (a box
of `cbbt serve`) and `features` (services that give features of texts and images alone).
"""
