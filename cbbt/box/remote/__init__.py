"""Boxes that stand elsewhere. Read `connection` (questions over HTTP, asked again while a server is away),
then `served` (a box of `cbbt serve`) and `features` (services that give features of texts and images alone).
"""
