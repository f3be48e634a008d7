"""Every completion that a policy has given, in one SQLite file that outlives any kill.

Nothing is asked twice: a completion is committed the moment it arrives, and found again by its key:
what the policy saw (text, options, pictures by content, the steps so far), the policy with its
settings, and the seed. Ids, domains and gold answers are not part of the key, because the policy
does not see them; correcting a gold answer costs no new completions.

The file is in WAL mode: one process writes (a lock beside the file sees to that), any number read
meanwhile. The progress of each output lies in it too, for `dreamprm status`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from dreamprm.data.files import lock_file, locked
from dreamprm.errors import DreamPRMError
from dreamprm.images import image_bytes
from dreamprm.policy import Completion, Reply, Writer
from dreamprm.records import Question


@dataclass(frozen=True)
class Generator:
    """Who writes, and how: a policy with its settings and the seed of the run (-1 for none)."""

    policy: str
    settings: str
    seed: int

    @classmethod
    def of(cls, policy: Writer, seed: int | None) -> Generator:
        """The generator that a policy is with this seed."""
        return cls(policy.name, canonical(policy.settings), -1 if seed is None else seed)

    @property
    def key(self) -> str:
        return digest("generator", self.policy, self.settings, str(self.seed))


def canonical(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON with one spelling for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(*parts: str) -> str:
    """32 hexadecimal digits that stand for the parts."""
    return hashlib.sha256(canonical(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def question_key(question: Question) -> str:
    """Name of a question as a policy sees it; pictures count by the bytes of their files.

    Raises:
        DataError: a picture cannot be read.
    """
    images = [hashlib.sha256(image_bytes(image)).hexdigest() for image in question.images]
    return digest("question", question.text, *question.options, "images", *images)


def prefix_key(question: str, steps: Sequence[str], generator: Generator) -> str:
    """Name of a prefix under a generator; `question` is a `question_key`."""
    return digest("prefix", question, generator.key, *steps)


def sample_seed(prefix: str, first_index: int) -> int:
    """Seed of a call that samples a prefix from `first_index` on, in [0, 2^31).

    It depends on what is sampled, not on when, so that a resumed run gets the same texts.
    """
    return int(digest("seed", prefix, str(first_index))[:8], 16) & 0x7FFFFFFF


def verdict_key(question: Question) -> str:
    """Name of a question as a verifier sees it."""
    facts = {name: question.extra.get(name) for name in ("unit", "precision", "answers")}
    return digest("verdict", question.text, question.answer, canonical(facts), *question.options)


VERSION = 1
_LOCK_WAIT_S = 1.0  # `dreamprm status` holds the lock for a moment
_WRITE_EVERY_S = 0.5  # of a job's progress

_SCHEMA = """
CREATE TABLE generators (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL,
    policy TEXT NOT NULL, settings TEXT NOT NULL, seed INTEGER NOT NULL);
CREATE TABLE prefixes (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL,
    question TEXT NOT NULL, question_id TEXT NOT NULL,
    generator INTEGER NOT NULL REFERENCES generators(id),
    steps TEXT NOT NULL);
CREATE INDEX prefixes_of_question ON prefixes (question, generator);
CREATE TABLE rollouts (
    prefix INTEGER NOT NULL REFERENCES prefixes(id), sample_index INTEGER NOT NULL,
    text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    PRIMARY KEY (prefix, sample_index)) WITHOUT ROWID;
CREATE TABLE verdicts (
    question TEXT NOT NULL, verifier TEXT NOT NULL, answer TEXT NOT NULL,
    correct INTEGER NOT NULL, rule TEXT NOT NULL,
    PRIMARY KEY (question, verifier, answer)) WITHOUT ROWID;
CREATE TABLE calls (
    time REAL NOT NULL, policy TEXT NOT NULL, completions INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL);
CREATE TABLE jobs (
    output TEXT PRIMARY KEY, verb TEXT NOT NULL, policy TEXT NOT NULL, unit TEXT NOT NULL,
    total INTEGER NOT NULL, done INTEGER NOT NULL, done_before INTEGER NOT NULL,
    started REAL NOT NULL, updated REAL NOT NULL, state TEXT NOT NULL);
"""

# Prefixes that are answered, but never with anything to use. A table of its own, which stores of
# older versions do not have until they are opened for writing.
_UNANSWERED = "CREATE TABLE IF NOT EXISTS unanswered (prefix TEXT PRIMARY KEY, why TEXT NOT NULL)"


class Usage(NamedTuple):
    """What calls have cost so far."""

    calls: int = 0
    completions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Prefix(NamedTuple):
    """Where completions belong: a question as the policy sees it, steps, and who continues them."""

    key: str
    question: str
    question_id: str
    steps: tuple[str, ...]
    generator: Generator


class Job(NamedTuple):
    """One output under way or finished.

    Attributes:
        output: the file that it makes.
        verb: `sample`, `label`, ...
        policy: name of the policy.
        unit: what is counted.
        total, done: of units; `done_before` of them were there when the last run began.
        started, updated: of the last run, in seconds of the epoch.
        state: `running`, `finished`, or why it stopped.
    """

    output: str
    verb: str
    policy: str
    unit: str
    total: int
    done: int = 0
    done_before: int = 0
    started: float = 0.0
    updated: float = 0.0
    state: str = "running"

    @property
    def rate(self) -> float | None:
        """Units per second in the last run; None before the first."""
        seconds = self.updated - self.started
        units = self.done - self.done_before
        return units / seconds if seconds > 0 and units > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the last run."""
        return None if self.rate is None else (self.total - self.done) / self.rate


class RolloutStore:
    """The store, opened for writing; made where it is not there.

    Args:
        path: the file, for example `rollouts.db`.
        readonly: only look; works while another process writes.

    Raises:
        DreamPRMError: no such store, another process writes to it, or it is no store of ours.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self.path = Path(path)
        self._lock = ExitStack()
        try:
            if readonly:
                self._open_to_read()
            else:
                self._open_to_write()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise DreamPRMError(
                f"{self.path}: cannot be opened as a rollout store: {error}; give another --store"
            ) from error
        except BaseException:
            self.close()
            raise

    def _open_to_read(self) -> None:
        if not self.path.is_file():
            raise DreamPRMError(f"{self.path}: there is no rollout store; correct the path")
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, timeout=30)
        try:
            self._check_version()
        except sqlite3.OperationalError:  # a folder that we may not write to, so nobody else does
            self._db.close()
            self._db = sqlite3.connect(f"{uri}&immutable=1", uri=True)
            self._check_version()

    def _open_to_write(self) -> None:
        self._lock.enter_context(
            locked(self.path, instead="give another --store", wait_s=_LOCK_WAIT_S)
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Each statement that changes a row begins a transaction, which `_writing` ends.
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level="IMMEDIATE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # a kill loses nothing committed
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
        self._check_version()
        self._db.execute(_UNANSWERED)

    def _check_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise DreamPRMError(
                f"{self.path}: not a rollout store of this version of dreamprm (has version "
                f"{version}, needs {VERSION}); give another --store"
            )

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say how to mend what the disk or the file refuses."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # bugs
            raise
        except sqlite3.DatabaseError as error:
            mend = "free space or choose another place"
            if "locked" in str(error):
                mend = "another program holds the file; close it"
            elif "malformed" in str(error) or "not a database" in str(error):
                mend = "the file is damaged: restore it, or give another --store"
            raise DreamPRMError(f"{self.path}: cannot {what}: {error}; {mend}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All changes of the block or, after an error, none."""
        with self._telling("write"), self._db:
            yield self._db

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._telling("read"):
            return self._db.execute(query, values).fetchall()

    def add(self, prefix: Prefix, first_index: int, reply: Reply, cost: float = 0.0) -> None:
        """Keep a policy's reply as samples `first_index`, `first_index` + 1, ... of a prefix."""
        by = prefix.generator
        with self._writing() as db:
            db.execute(
                "INSERT OR IGNORE INTO generators (key, policy, settings, seed) "
                "VALUES (?, ?, ?, ?)",
                (by.key, by.policy, by.settings, by.seed),
            )
            db.execute(
                "INSERT OR IGNORE INTO prefixes (key, question, question_id, generator, steps) "
                "VALUES (?, ?, ?, (SELECT id FROM generators WHERE key = ?), ?)",
                (*prefix[:3], by.key, json.dumps(prefix.steps)),
            )
            db.executemany(
                "INSERT INTO rollouts VALUES ((SELECT id FROM prefixes WHERE key = ?), ?, ?, ?)",
                (
                    (prefix.key, index, _storable(completion.text), completion.finish_reason)
                    for index, completion in enumerate(reply.completions, first_index)
                ),
            )
            self._note_call(db, by.policy, reply, cost)

    def add_call(self, policy: str, reply: Reply, cost: float = 0.0) -> None:
        """Note what a call cost whose text is not kept (a judge's)."""
        with self._writing() as db:
            self._note_call(db, policy, reply, cost)

    @staticmethod
    def _note_call(db: sqlite3.Connection, policy: str, reply: Reply, cost: float) -> None:
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        row = (time.time(), policy, len(reply.completions), *tokens, cost)
        db.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?)", row)

    def add_unanswered(self, prefix: Prefix, why: str) -> None:
        """Note that a prefix is not to be asked for again."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO unanswered VALUES (?, ?)", (prefix.key, why))

    def why_unanswered(self, prefix: str) -> str | None:
        """Why a prefix (its key) is not to be asked for again; None for all others."""
        rows = self._rows("SELECT why FROM unanswered WHERE prefix = ?", prefix)
        return rows[0][0] if rows else None

    def forget_unanswered(self) -> None:
        """Let them be asked for again."""
        with self._writing() as db:
            db.execute("DELETE FROM unanswered")

    def unanswered(self) -> int:
        """How many there are."""
        known = self._rows("SELECT 1 FROM sqlite_master WHERE name = 'unanswered'")
        return int(self._rows("SELECT count(*) FROM unanswered")[0][0]) if known else 0

    def completions(self, prefix: str, limit: int = -1) -> list[Completion]:
        """The samples of a prefix (its key) in order of their index; those of the lowest first."""
        rows = self._rows(
            "SELECT text, finish_reason FROM rollouts WHERE prefix = "
            "(SELECT id FROM prefixes WHERE key = ?) ORDER BY sample_index LIMIT ?",
            prefix,
            limit,
        )
        return [Completion(*row) for row in rows]

    def generators(self) -> list[Generator]:
        """All that have written something, the last first."""
        rows = self._rows("SELECT policy, settings, seed FROM generators ORDER BY id DESC")
        return [Generator(*row) for row in rows]

    def verdict(self, question: str, verifier: str, answer: str) -> tuple[bool, str] | None:
        """(is it right, by which rule) of an answer that was verified before."""
        rows = self._rows(
            "SELECT correct, rule FROM verdicts WHERE question = ? AND verifier = ? AND answer = ?",
            question,
            verifier,
            _storable(answer),
        )
        return (bool(rows[0][0]), rows[0][1]) if rows else None

    def add_verdict(
        self, question: str, verifier: str, answer: str, correct: bool, rule: str
    ) -> None:
        """Keep a verdict."""
        row = (question, verifier, _storable(answer), correct, rule)
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)", row)

    def usage(self) -> dict[str, Usage]:
        """Policy -> what its calls have cost."""
        rows = self._rows(
            "SELECT policy, count(*), sum(completions), sum(prompt_tokens), "
            "sum(completion_tokens), sum(cost) FROM calls GROUP BY policy"
        )
        return {policy: Usage(*values) for policy, *values in rows}

    def dearest_call(self) -> tuple[int, float]:
        """Most tokens, and highest cost, of one call so far."""
        [(tokens, cost)] = self._rows(
            "SELECT max(prompt_tokens + completion_tokens), max(cost) FROM calls"
        )
        return tokens or 0, cost or 0.0

    def finish_reasons(self, generator: Generator) -> dict[str, int]:
        """Why the completions of a generator ended -> how many."""
        rows = self._rows(
            "SELECT finish_reason, count(*) FROM rollouts JOIN prefixes ON prefixes.id = prefix "
            "WHERE generator = (SELECT id FROM generators WHERE key = ?) GROUP BY finish_reason",
            generator.key,
        )
        return dict(rows)

    def counts(self) -> dict[str, int]:
        """How many rows each table holds."""
        tables = ("generators", "prefixes", "rollouts", "verdicts")
        return {name: self._rows(f"SELECT count(*) FROM {name}")[0][0] for name in tables}

    def jobs(self) -> list[Job]:
        """All jobs, the last begun first."""
        rows = self._rows(f"SELECT {', '.join(Job._fields)} FROM jobs ORDER BY started DESC")
        return [Job(*row) for row in rows]

    def keep_job(self, job: Job) -> None:
        """Keep how far a job is, in place of what was known of its output."""
        with self._writing() as db:
            db.execute(f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * len(job))})", job)

    def close(self) -> None:
        """Close the file and let others write; a second call does nothing."""
        if hasattr(self, "_db"):
            self._db.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JobWriter:
    """Keeps the progress of one job in the store.

    Units that end before the policy has answered anything were in the store already; they do not
    count for the rate.

    Args:
        store: open for writing.
        job: what is made, and how many units of it.
        calls: tells how many calls of the policy have ended.
    """

    def __init__(self, store: RolloutStore, job: Job, calls: Callable[[], int]) -> None:
        self._store, self._calls, self._calls_before = store, calls, calls()
        self.job = job._replace(started=time.time())
        self.finish("running")

    def advance(self, units: int = 1) -> None:
        """So many more units are done."""
        self.job = self.job._replace(done=self.job.done + units)
        if self._calls() == self._calls_before:
            self.job = self.job._replace(done_before=self.job.done, started=time.time())
        if time.time() - self.job.updated >= _WRITE_EVERY_S:
            self.finish("running")

    def finish(self, state: str = "finished") -> None:
        """The run is over."""
        self.job = self.job._replace(updated=time.time(), state=state)
        self._store.keep_job(self.job)


def is_being_written(path: Path) -> bool:
    """Does a process hold the store open for writing? (False in a folder that is read-only.)"""
    if not lock_file(path).exists():
        return False
    try:
        with locked(path):
            return False
    except DreamPRMError:
        return True


def _storable(text: str) -> str:
    """SQLite holds UTF-8; half a surrogate pair, which a server may send, is replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
