"""Boxes whose model is on another machine.

Read `connection` (requests over HTTP, retried while a server is unavailable), then `served` (a box
of `cbbt serve`) and `features` (services that give only features of texts and images).
"""
