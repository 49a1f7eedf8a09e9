"""What a run knew is found by the next, and never under another program, input, limit or engine."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import ExecutorConfig
from common.errors import ConfigError, PartFailed
from common.types import Status
from executor.outcome import Outcome
from executor.store import FORMAT, Scope, Store, engine, place

SCOPE = Scope.of(ExecutorConfig(), policy=True, hash_seed=1)
PLACES = [bytes([n]) * 16 for n in range(40)]
_WRITER = """
import sys
from pathlib import Path
from executor.outcome import Outcome
from executor.store import Store

store, number = Store(Path(sys.argv[1])), int(sys.argv[2])
print("open", flush=True)
sys.stdin.readline()
for n in range(50):
    store.put({b"%d %d %d" % (number, n, i): Outcome("ok", str(number), b"k") for i in range(4)})
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "a" / "store")
    yield store
    store.close()


def reopened(folder: Path, places: list[bytes]) -> dict[bytes, Outcome]:
    store = Store(folder)
    try:
        return store.get(places)
    finally:
        store.close()


def damage(folder: Path, start: int) -> None:
    """Overwrite the file from byte `start` on."""
    file = folder / "outcomes.sqlite"
    data = file.read_bytes()
    assert len(data) > start
    file.write_bytes(data[:start] + b"\xff" * (len(data) - start))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Scope)])
def test_every_part_of_the_scope_makes_another_place(field: str) -> None:
    value: Any = getattr(SCOPE, field)
    changed: Any = {field: not value if isinstance(value, bool) else value * 2}
    other = dataclasses.replace(SCOPE, **changed)
    assert place(other.digest(), b"code", b"data") != place(SCOPE.digest(), b"code", b"data")


def test_the_scope_is_that_of_the_configuration() -> None:
    for change in ({"cpu_limit": 9.0}, {"memory_mb": 99}, {"output_limit": 9}):
        assert Scope.of(dataclasses.replace(ExecutorConfig(), **change), policy=True, hash_seed=1) != SCOPE
    assert Scope.of(ExecutorConfig(), policy=False, hash_seed=1) != SCOPE
    assert Scope.of(ExecutorConfig(), policy=True, hash_seed=2) != SCOPE
    assert Scope.of(ExecutorConfig(cache=1, shards=2, store="elsewhere"), policy=True, hash_seed=1) == SCOPE


@given(st.tuples(st.binary(), st.binary()), st.tuples(st.binary(), st.binary()))
def test_program_and_input_make_the_place(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> None:
    scope = SCOPE.digest()
    assert (place(scope, *one) == place(scope, *other)) == (one == other)
    assert place(scope, one[0] + b"x", one[1]) != place(scope, one[0], b"x" + one[1])


def test_any_change_of_a_source_makes_another_engine(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("same", "equal", "edited", "renamed", "joined")]
    for folder in folders:
        folder.mkdir()
        (folder / "runner.py").write_text("a = 1")
        (folder / "loop.c").write_text("int a;")
        (folder / "notes.txt").write_text(folder.name)
    same, equal, edited, renamed, joined = folders
    (edited / "loop.c").write_text("int b;")
    (renamed / "loop.c").rename(renamed / "fork.c")
    (joined / "more.py").write_text("")
    assert engine(same) == engine(equal)
    assert len({engine(folder) for folder in folders}) == 4


def test_outcomes_are_found_by_the_next_run(tmp_path: Path) -> None:
    known = {
        PLACES[0]: Outcome(Status.OK, "'\ud800\x00é'", b"\x00" * 16),
        PLACES[1]: Outcome(Status.ERROR, "KeyError"),
        PLACES[2]: Outcome(Status.OK, "", b"k"),
    }
    first = Store(tmp_path)
    first.put(known)
    first.close()
    assert reopened(tmp_path, PLACES[:5]) == known
    assert reopened(tmp_path, [PLACES[1]]) == {PLACES[1]: known[PLACES[1]]}
    assert reopened(tmp_path, []) == {}


def test_only_what_a_second_run_would_repeat_is_kept(store: Store) -> None:
    every = [*Status, "crash_11"]
    store.put({PLACES[n]: Outcome(status, "t") for n, status in enumerate(every)})
    kept = {outcome.status for outcome in store.get(PLACES).values()}
    assert kept == {"ok", "error", "input", "exit", "unserialisable", "too_big", "nondeterministic"}


def test_shards_see_each_others_outcomes_and_the_first_stands(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "a" / "store")
    store.put({PLACES[0]: Outcome("ok", "1", b"a")})
    other.put({PLACES[0]: Outcome("ok", "1.0", b"a"), PLACES[1]: Outcome("exit")})
    assert store.get(PLACES) == other.get(PLACES) == {PLACES[0]: Outcome("ok", "1", b"a"), PLACES[1]: Outcome("exit")}
    other.close()


def test_processes_that_begin_and_write_a_store_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    places = [b"%d %d %d" % (number, n, i) for number in range(4) for n in range(50) for i in range(4)]
    found = reopened(tmp_path, places)
    assert {place: outcome.text for place, outcome in found.items()} == {p: p.decode().split()[0] for p in places}


@pytest.mark.parametrize("start", [0, 100, 4096])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, start: int) -> None:
    first = Store(tmp_path)
    first.put({place: Outcome("ok", "x" * 200, b"k") for place in PLACES})
    first.close()
    damage(tmp_path, start)
    before = (tmp_path / "outcomes.sqlite").read_bytes()
    with pytest.raises(PartFailed, match=r"outcomes\.sqlite.*\n.*move it away") as caught:
        reopened(tmp_path, PLACES)
    assert (tmp_path / "outcomes.sqlite").read_bytes() == before
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


@pytest.mark.parametrize("change", [f"PRAGMA user_version={FORMAT + 1}", "PRAGMA user_version=0"])
def test_a_file_of_another_format_is_named_and_left_as_it_is(tmp_path: Path, change: str) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "outcomes.sqlite") as db:
        db.execute(change)
    db.close()
    before = (tmp_path / "outcomes.sqlite").read_bytes()
    with pytest.raises(PartFailed, match=r"outcomes\.sqlite: of format .*\n.*move it away"):
        Store(tmp_path)
    assert (tmp_path / "outcomes.sqlite").read_bytes() == before


def test_a_folder_that_cannot_hold_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=rf"executor\.store: {path} cannot hold a file .*writable folder"):
            Store(path)
    (tmp_path / "outcomes.sqlite").mkdir()
    with pytest.raises(PartFailed, match=r"outcomes\.sqlite.*\n.*writable folder"):
        Store(tmp_path)
