"""`python -m cbbt` is the command `cbbt`."""

from cbbt.cli import app

app(prog_name="cbbt")
