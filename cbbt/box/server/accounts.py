"""Accounts of a served box: API keys, budgets and the ledger.

Keys and budgets come from a YAML file:

    alice: {key: 3f1c…, class_prompts: 1000000, images: 20000}
    bob: {key: 9b2e…}

Grains without a number are unlimited. The counts are kept in an SQLite file, which survives a
crash of the server at any moment. A request with an `Idempotency-Key` is recorded under it;
repeated with the same key, it is not charged again.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from cbbt.box.ledger import GRAINS, BudgetExceeded

REMEMBERED = 30 * 24 * 3600  # seconds for which an idempotency key is remembered
ANYONE = "anyone"  # the account of a server without keys

TABLES = """
CREATE TABLE IF NOT EXISTS spent (account TEXT PRIMARY KEY, loss_queries INTEGER, class_prompts INTEGER, images INTEGER);
CREATE TABLE IF NOT EXISTS questions (account TEXT, id TEXT, digest TEXT, asked REAL, PRIMARY KEY (account, id)) WITHOUT ROWID;
"""


class AnotherQuestion(ValueError):
    """An idempotency key that was used for another request."""


@dataclass(frozen=True)
class Account:
    """name: identifies it in the ledger. budget: grain → largest count; grains not named are unlimited."""

    name: str
    budget: dict[str, int]


def read_keys(path: str | Path) -> dict[str, Account]:
    """SHA-256 of each key → its account. Raises ValueError, which shows no key, for a file in another format."""
    try:
        entries = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the key file {path} ({type(error).__name__})") from error
    form = "name: {key: …, class_prompts: 1000000}"
    if not isinstance(entries, dict) or not entries or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"the key file {path} should hold entries such as {form}")
    accounts: dict[str, Account] = {}
    for name, entry in entries.items():
        key, budget = entry.get("key"), {grain: limit for grain, limit in entry.items() if grain != "key"}
        if not isinstance(key, str) or len(key) < 16:
            raise ValueError(f"the key of {name!r} in {path} should be text of at least 16 characters")
        for grain, limit in budget.items():
            if grain not in GRAINS or isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
                raise ValueError(f"{name!r} in {path} should have whole numbers for {', '.join(GRAINS)}, got {grain}: {limit!r}")
        if accounts.setdefault(digest_of(key.encode()), account := Account(str(name), budget)) is not account:
            raise ValueError(f"{name!r} in {path} has the same key as another account")
    return accounts


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class ServerLedger:
    """Counts of every account at the grains of `GRAINS`, in the SQLite file `path` (":memory:": no file).

    Each charge is one transaction. With SQLite's write-ahead log a charge survives a kill of the process;
    after a power cut the last ones may be missing.
    """

    def __init__(self, path: str | Path):
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 10000"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.executescript(TABLES)
        self.connection.execute("DELETE FROM questions WHERE asked < ?", (time.time() - REMEMBERED,))

    def charge(self, account: Account, cost: dict[str, int], question: str | None, digest: str) -> bool:
        """Add `cost` (grain → count), or nothing if `question`, an idempotency key, was charged before; whether it was added.

        Raises `BudgetExceeded`, and adds nothing, if the account's budget does not allow it; `AnotherQuestion` if
        `question` was used with another `digest` of the content.
        """
        with self._transaction():
            if question is not None:
                row = self._one("SELECT digest FROM questions WHERE account = ? AND id = ?", account.name, question)
                if row is not None:
                    if row[0] != digest:
                        raise AnotherQuestion("this Idempotency-Key was used for another request")
                    return False
                self._run("INSERT INTO questions VALUES (?, ?, ?, ?)", account.name, question, digest, time.time())
            spent = self.spent(account)
            for grain, count in cost.items():
                limit = account.budget.get(grain)
                if limit is not None and spent[grain] + count > limit:
                    raise BudgetExceeded(f"{grain}: {limit - spent[grain]} of {limit} are left, this request costs {count}")
            self._add(account, cost, 1)
            return True

    def take_back(self, account: Account, cost: dict[str, int], question: str | None) -> None:
        """Undo a charge: the model refused the request, which may be repeated."""
        with self._transaction():
            self._run("DELETE FROM questions WHERE account = ? AND id = ?", account.name, question or "")
            self._add(account, cost, -1)

    def spent(self, account: Account) -> dict[str, int]:
        """Grain → count so far."""
        row = self._one(f"SELECT {', '.join(GRAINS)} FROM spent WHERE account = ?", account.name)
        return dict(zip(GRAINS, row or (0,) * len(GRAINS)))

    def close(self) -> None:
        self.connection.close()

    def _add(self, account: Account, cost: dict[str, int], sign: int) -> None:
        self._run("INSERT OR IGNORE INTO spent VALUES (?, 0, 0, 0)", account.name)
        for grain, count in cost.items():
            self._run(f"UPDATE spent SET {grain} = {grain} + ? WHERE account = ?", sign * count, account.name)

    def _transaction(self):
        # With isolation_level None the connection's own context manager opens no transaction; it commits or rolls back.
        self.connection.execute("BEGIN IMMEDIATE")
        return self.connection

    def _run(self, statement: str, *values) -> sqlite3.Cursor:
        return self.connection.execute(statement, values)

    def _one(self, statement: str, *values):
        return self._run(statement, *values).fetchone()
