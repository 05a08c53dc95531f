"""A box over HTTP: keys, budgets, a ledger on disk.

Read `app`, the endpoints; then `doors` (the caller, the limits, the cost), `forms` (what a
request holds), `accounts` (keys and the ledger) and `worker` (the one thread in which the
model answers). `serve` starts it all, `process` does so in a child process.
"""
