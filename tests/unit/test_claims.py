"""Claims: one holder for each key, and none that is dead."""

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import orjson
import pytest
from chaos.processes import Child, killed_at_the_end, wait_for
from hypothesis import strategies as st

from exca_like import errors, processes
from exca_like.cachedict import claims as module
from exca_like.cachedict import owners
from exca_like.cachedict.claims import Claim, FolderClaims
from exca_like.cachedict.digests import digests_of, ordered
from exca_like.cachedict.memory_claims import MemoryClaims
from exca_like.executors import job_is_over

HEAD = 1024
LOCK = "lock"


def make(folder: Path, is_over: Callable[[dict[str, Any]], bool] = lambda _: False, **settings: Any) -> FolderClaims:
    folder.mkdir(exist_ok=True)
    return FolderClaims(str(folder), LOCK, is_over, **settings)


def everything(free: list[str]) -> list[list[str]]:
    return [free] if free else []


def claimed(claims: FolderClaims | MemoryClaims, keys: Iterable[str]) -> list[str]:
    """Keys that a caller would get."""
    mine, _ = claims.claim(list(keys), everything)
    got = [key for claim in mine for key in claim.keys]
    for claim in mine:
        claim.close()
    return got


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.claim"))


def forge(path: Path, **changes: Any) -> None:
    """Change who a claim says its owner is."""
    owner = orjson.loads(path.read_bytes()[:HEAD]) | changes
    with path.open("r+b") as stream:
        stream.write(orjson.dumps(owner).ljust(HEAD - 1) + b"\n")


@pytest.fixture(params=["folder", "memory"])
def claims(request, tmp_path: Path) -> FolderClaims | MemoryClaims:
    return make(tmp_path / "folder") if request.param == "folder" else MemoryClaims()


# what is held


def test_overlapping_callers_get_what_is_free(claims):
    (first,), waiting = claims.claim(["a", "b", "c"], everything)
    assert list(first.keys) == ["a", "b", "c"]
    assert not waiting
    (second,), waiting = claims.claim(["b", "d", "c", "e"], everything)
    assert list(second.keys) == ["d", "e"]
    assert sorted(key for others in waiting for key in others.keys) == ["b", "c"]
    assert {name for others in waiting for name in others.names()} == {first.name}
    assert not any(others.freed() for others in waiting)
    first.close()
    assert sorted(key for others in waiting for key in others.freed()) == ["b", "c"]
    assert not any(others.keys for others in waiting)
    assert claimed(claims, "abcde") == ["a", "b", "c"]
    second.close()
    assert claimed(claims, "abcde") == list("abcde")


def test_keys_are_released_one_by_one(claims):
    (first,), _ = claims.claim(["a", "b", "c"], everything)
    _, (waiting,) = claims.claim(["a", "b", "c"], everything)
    first.release("b")
    assert waiting.freed() == ["b"]
    assert sorted(waiting.keys) == ["a", "c"]
    assert claimed(claims, "abc") == ["b"]
    first.close()
    assert sorted(waiting.freed()) == ["a", "c"]


def test_what_is_released_late_is_seen_soon(tmp_path):
    """Releases are written together, but none is held back until the end."""
    claims = make(tmp_path)
    keys = [str(number) for number in range(200)]
    (claim,), _ = claims.claim(keys, everything)
    for key in keys[:-1]:
        claim.release(key)
    time.sleep(0.1)
    claim.release(keys[-1])
    assert claimed(claims, keys) == keys


def test_nothing_is_claimed_that_is_not_chosen(claims, tmp_path):
    offered = []

    def choose(free: list[str]) -> list[Sequence[str]]:
        offered.append(free)
        return [free[:1], free[2:]]

    mine, waiting = claims.claim(["a", "b", "c", "d"], choose)
    assert offered == [["a", "b", "c", "d"]]
    assert [list(claim.keys) for claim in mine] == [["a"], ["c", "d"]]
    assert not waiting
    assert claimed(claims, "abcd") == ["b"]
    mine[0].close()
    assert claimed(claims, "abcd") == ["a", "b"]
    mine[1].close()
    assert not list(tmp_path.rglob("*.claim"))


def test_an_error_while_choosing_claims_nothing(claims, tmp_path):
    def choose(free: list[str]) -> Iterator[list[str]]:
        yield free[:2]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        claims.claim(["a", "b", "c"], choose)
    assert not list(tmp_path.rglob("*.claim"))
    assert claimed(claims, "abc") == ["a", "b", "c"]


def test_blocks_release_at_their_end(claims):
    (claim,), _ = claims.claim(["a"], everything)
    with contextlib.suppress(ZeroDivisionError), claim:
        assert claimed(claims, "a") == []
        raise ZeroDivisionError
    assert claimed(claims, "a") == ["a"]
    claim.close()  # again does no harm
    assert claimed(claims, "a") == ["a"]


def test_odd_keys(tmp_path):
    claims = make(tmp_path)
    keys = ["", " ", "é" * 300, "\ud800", "a\nb", "a/b", "\0"]
    (claim,), _ = claims.claim(keys, everything)
    assert claimed(claims, keys) == []
    for key in keys:
        claim.release(key)
    claim.close()
    assert claimed(claims, keys) == keys


def test_folders_that_are_not_there(tmp_path):
    claims = FolderClaims(str(tmp_path / "none"), LOCK, lambda _: False)
    assert claims.held("none.claim", digests_of(["a"])) == []
    with pytest.raises(errors.CacheFolderError, match="none"):
        claims.claim(["a"], everything)


def test_permissions(tmp_path):
    (claim,), _ = make(tmp_path, permissions=0o640).claim(["a"], everything)
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o640]
    claim.close()


KEYS = st.lists(st.sampled_from([str(number) for number in range(12)]), unique=True)


@hypothesis.settings(max_examples=60, deadline=None, database=None)
@hypothesis.given(st.data())
def test_no_key_has_two_holders(tmp_path_factory, data):
    """Whatever callers claim, release and end, a key is held by one at most, and what nobody holds is given."""
    claims = make(tmp_path_factory.mktemp("claims"))
    held: list[tuple[Claim, set[str]]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["claim", "claim", "release", "close"])) if held else "claim"
        if what == "claim":
            keys = data.draw(KEYS)
            groups = data.draw(st.integers(1, 3))
            mine, waiting = claims.claim(keys, lambda free, n=groups: [free[k::n] for k in range(n) if free[k::n]])
            taken = set().union(*(keys for _, keys in held))
            assert {key for claim in mine for key in claim.keys} == set(keys) - taken
            assert sorted(key for others in waiting for key in others.keys) == sorted(set(keys) & taken)
            held += [(claim, set(claim.keys)) for claim in mine]
        else:
            claim, left = held[data.draw(st.integers(0, len(held) - 1))]
            if what == "release" and left:
                key = data.draw(st.sampled_from(sorted(left)))
                claim._next_flush = 0.0  # written at once
                claim.release(key)
                left.discard(key)
            else:
                claim.close()
                left.clear()
    for claim, _ in held:
        claim.close()
    assert not files(Path(claims.folder))


# owners


def hold(send: Any, folder: Path, keys: list[str]) -> None:
    mine, _ = make(folder).claim(keys, everything)
    send([key for claim in mine for key in claim.keys])
    time.sleep(300)


def holder(folder: Path, keys: list[str]) -> Child:
    child = Child(hold, folder, keys)
    end = time.monotonic() + 30
    while not child.items:
        assert time.monotonic() < end
        child.receive()
        time.sleep(0.002)
    return child


def test_a_killed_owner_frees_its_keys(tmp_path):
    claims = make(tmp_path)
    child = holder(tmp_path, ["a", "b"])
    with killed_at_the_end([child]):
        (mine,), (waiting,) = claims.claim(["a", "c"], everything)
        assert list(mine.keys) == ["c"]
        assert f"process {child.pid} " in str(waiting)
        assert str(files(tmp_path)[0]) in str(waiting) or str(files(tmp_path)[1]) in str(waiting)
        assert waiting.freed() == []
        child.kill()
        assert waiting.freed() == ["a"]
    mine.close()
    assert claimed(claims, "abc") == ["a", "b", "c"]
    assert not files(tmp_path), "claims of the dead are removed"


def test_a_dead_owner_that_nobody_has_waited_for_frees_its_keys(tmp_path):
    """A process that has ended, but is still in the table of processes."""
    pid = os.fork()
    if not pid:
        make(tmp_path).claim(["a"], everything)
        os._exit(0)
    try:
        end = time.monotonic() + 30
        while b") Z" not in Path(f"/proc/{pid}/stat").read_bytes():
            assert time.monotonic() < end
            time.sleep(0.002)
        assert len(files(tmp_path)) == 1
        assert claimed(make(tmp_path), "a") == ["a"]
    finally:
        os.waitpid(pid, 0)


def test_what_nobody_takes_over_from_the_dead_is_still_told(tmp_path):
    claims = make(tmp_path)
    child = holder(tmp_path, "abcd")
    with killed_at_the_end([child]):
        child.kill()
    (mine,), _ = claims.claim("bx", everything)
    assert list(mine.keys) == ["b", "x"]
    assert claims.look()[0]["pid"] == os.getpid()
    mine.close()
    holder_now, (left,) = claims.look()
    assert holder_now is None and left.owner["pid"] == child.pid
    assert (left.number(()), left.number(ordered(digests_of(["a"])))) == (3, 2), "b is not its own any more"
    assert claimed(claims, "acd") == ["a", "c", "d"]
    assert not files(tmp_path)


def test_a_job_that_is_over_leaves_what_nobody_takes_over(tmp_path):
    job = {"cluster": "slurm", "job_id": "7"}
    claims = make(tmp_path, lambda record: True)
    (handed,), _ = claims.claim("abc", everything)
    handed.hand_over(job)
    assert claimed(claims, "c") == ["c"]
    ((owner, table),) = claims.look()[1]
    assert owner["job"] == job and table.count() == 2
    claims.job = job  # which was started again, lives, and would be waited for
    assert claimed(claims, "b") == ["b"] and not files(tmp_path)


def test_claims_of_the_dead_that_can_not_be_written_to_are_removed(tmp_path, monkeypatch):
    claims = make(tmp_path, lambda record: True)
    (handed,), _ = claims.claim("ab", everything)
    handed.hand_over({"cluster": "slurm", "job_id": "7"})

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(module, "open", refuse, raising=False)
    assert claimed(claims, "a") == ["a"] and not files(tmp_path)


def test_a_pid_that_is_used_again_is_not_the_owner(tmp_path):
    claims = make(tmp_path)
    (mine,), _ = claims.claim(["a"], everything)
    (path,) = files(tmp_path)
    assert claimed(claims, "a") == []
    forge(path, start="1")
    assert claimed(claims, "a") == ["a"]
    mine.close()


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """The file of a claim on ``a`` and ``b`` of a process that can't be seen from here."""
    child = holder(tmp_path, ["a", "b"])
    (path,) = files(tmp_path)
    forge(path, system="another", host="faraway")
    child.kill()
    return path


def test_owners_on_other_hosts_live_while_their_hearts_beat(tmp_path, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "LOST_S", 0.25)
    claims = make(tmp_path)
    assert claimed(claims, "ab") == []
    _, (waiting,) = claims.claim(["a"], everything)
    assert "faraway" in str(waiting)
    for beat in range(5):
        time.sleep(0.1)
        os.utime(elsewhere, (beat, beat))
        assert waiting.freed() == []
        assert claimed(claims, "ab") == []
    end = time.monotonic() + 10
    while not waiting.freed():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert claimed(claims, "ab") == ["a", "b"]
    assert not elsewhere.exists()


def test_a_clock_that_is_wrong_does_not_matter(tmp_path, elsewhere, monkeypatch):
    """Only whether the time stamp moves counts, not where it is."""
    monkeypatch.setattr(module, "LOST_S", 0.2)
    claims = make(tmp_path)
    for stamp in (2e9, 1e9, 3e9):
        os.utime(elsewhere, (stamp, stamp))
        assert claimed(claims, "a") == []
        time.sleep(0.12)
    time.sleep(0.12)
    assert claimed(claims, "a") == ["a"]


def test_an_old_time_stamp_is_told_and_nothing_is_removed_for_it(tmp_path, elsewhere):
    (path,) = files(tmp_path)
    claims = make(tmp_path)
    assert claims.look()[0] == orjson.loads(path.read_bytes()[:HEAD])
    os.utime(path, (0, 0))
    holder, (left,) = claims.look()
    assert holder is None and left.owner["host"] == "faraway" and left.number(()) == 2
    assert left.number(ordered(digests_of(["b", "c"]))) == 1, "b is stored"
    with claims.quiet() as living:
        assert living is not None and " on faraway, " in living, "its clock may be wrong, or ours"
        assert living.endswith(f"or if that is gone remove {path})")


def test_a_claim_that_can_not_be_read_may_be_alive(tmp_path):
    claims = make(tmp_path)
    assert claims.look() == (None, [])
    (tmp_path / "x.claim").symlink_to("x.claim")
    assert claims.look() == ({}, []) and claims.owners() == []
    with claims.quiet() as living:
        assert living == "somebody whose claim can't be read"


def test_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(owners, "BEAT_S", 0.02)
    heartbeat = owners.Heartbeat()  # the process's own sleeps for longer
    monkeypatch.setattr(module, "heartbeat", heartbeat)
    (first,), _ = make(tmp_path).claim(["a"], everything)
    (second,), _ = make(tmp_path).claim(["b"], everything)
    for path in files(tmp_path):
        os.utime(path, (1, 1))
    end = time.monotonic() + 10
    while any(path.stat().st_mtime == 1 for path in files(tmp_path)):
        assert time.monotonic() < end
        time.sleep(0.01)
    first.close()
    second.close()
    time.sleep(0.06)
    assert not files(tmp_path), "a heartbeat brings a claim back"
    assert not heartbeat._paths
    assert sum(thread.name == "exca_like-heartbeat" for thread in threading.enumerate()) <= 2


def test_jobs_hold_what_was_handed_over(tmp_path):
    ended: set[str] = set()
    claims = make(tmp_path, lambda job: job["job_id"] in ended)
    mine, _ = claims.claim(["a", "b", "c"], lambda free: [free[:2], free[2:]])
    for number, claim in enumerate(mine):
        claim.hand_over({"cluster": "slurm", "job_id": str(number), "logs": "/logs/%j"})
    _, waiting = claims.claim(["a", "c"], everything)
    assert "job 0 (slurm)" in "".join(map(str, waiting))
    assert "scancel it" in "".join(map(str, waiting))
    assert claimed(claims, "abc") == []
    for path in files(tmp_path):  # the process that submitted them is gone
        forge(path, start="1")
    assert claimed(claims, "abc") == []
    ended.add("0")
    assert [key for others in waiting for key in others.freed()] == ["a"]
    assert claimed(claims, "abc") == ["a", "b"]
    ended.add("1")
    assert claimed(claims, "abc") == ["a", "b", "c"]


def test_jobs_adopt_their_claims(tmp_path):
    claims = make(tmp_path)
    job = {"cluster": "local", "job_id": "1", "logs": "/logs/%j"}
    (mine,), _ = claims.claim(["b", "a"], everything)
    mine.hand_over(job)
    adopted = Claim.adopt(mine.path, ["b", "a"], job)
    assert adopted is not None
    assert claimed(claims, "ab") == []
    adopted.release("b")
    assert claimed(claims, "ab") == ["b"]
    with adopted:
        assert claimed(claims, "ab") == ["b"]
    assert claimed(claims, "ab") == ["a", "b"]
    assert Claim.adopt(mine.path, ["b", "a"], job) is None
    mine.hand_over(job)  # of a job that has ended before its submitter could do this


def test_a_job_that_begins_early_keeps_its_claim(tmp_path):
    """It may adopt the claim before its submitter has handed it over, and then end the block of the submitter."""
    claims = make(tmp_path)
    job = {"cluster": "local", "job_id": "1", "logs": "/logs/%j"}
    (mine,), _ = claims.claim(["a"], everything)
    adopted = Claim.adopt(mine.path, ["a"], job)
    mine.hand_over(job)
    mine.close()
    assert claimed(claims, "a") == []
    assert adopted is not None
    adopted.close()
    assert claimed(claims, "a") == ["a"]


# damage


SOUND = 3  # keys of the claim that is damaged


def contents() -> st.SearchStrategy[bytes]:
    heads = st.one_of(
        st.binary(max_size=1200),
        st.sampled_from([b"", b"{", b"{}", b"[]", b"null", b"5", b'"x"', b"\0" * HEAD, b"{}".ljust(HEAD) + b"\1" * 5]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=2)).map(
            lambda value: orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _fits(value) else b"1"
        ),
        st.fixed_dictionaries(
            {},
            optional={
                "system": st.sampled_from([processes.system(), "another", None, 5]),
                "pid": st.sampled_from([os.getpid(), 0, -1, "x", None, 1 << 40, []]),
                "start": st.sampled_from(["", "1", None, 5]),
                "job": st.sampled_from([None, {}, [], "x", 5, {"cluster": "local"}]),
            },
        ).map(orjson.dumps),
    )
    return st.tuples(heads, st.binary(max_size=40), st.booleans()).map(
        lambda parts: parts[0].ljust(HEAD) + parts[1] if parts[2] else parts[0] + parts[1]
    )


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:  # too large an integer, or a lone surrogate
        return False
    return True


@hypothesis.settings(max_examples=150, deadline=None, database=None)
@hypothesis.given(contents())
@hypothesis.example(b"[]".ljust(HEAD) + b"\0" * 9)
@hypothesis.example(b"5".ljust(HEAD) + digests_of(["a"]).tobytes() + b"\0")
@hypothesis.example(
    orjson.dumps({"system": processes.system(), "pid": "x", "start": "1"}).ljust(HEAD) + digests_of(["a"]).tobytes() + b"\0"
)
def test_garbage_stops_nobody(tmp_path_factory, content):
    """Whatever is in a file of that name, callers go on: at once, or when it has not moved for a while."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "host-1-0.claim").write_bytes(content)
    claims = make(folder, job_is_over)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOST_S", 0.0)
        mine, waiting = claims.claim(["a", "b", "c"], everything)
        assert len(waiting) <= 1
        for others in waiting:
            assert str(others)
            others.freed()
        for claim in mine:
            claim.close()
        time.sleep(0.001)
        again, waiting = claims.claim(["a", "b", "c"], everything)
        assert [key for claim in again for key in claim.keys] == ["a", "b", "c"]
        assert not waiting
        for claim in again:
            claim.close()


@pytest.mark.parametrize("length", [0, 10, HEAD - 1, HEAD, HEAD + 1, HEAD + 8, HEAD + 9, HEAD + 20, HEAD + 26])
def test_torn_claims(tmp_path, length):
    """A claim that could not be written to its end, of a process that is gone."""
    child = holder(tmp_path, ["a", "b", "c"])
    child.kill()
    (path,) = files(tmp_path)
    os.truncate(path, length)
    claims = make(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOST_S", 0.0)
        claimed(claims, "abc")
        time.sleep(0.001)
        assert claimed(claims, "abc") == ["a", "b", "c"]


def test_folders_and_links_with_such_names(tmp_path):
    (tmp_path / "link.claim").symlink_to(tmp_path / "nowhere")
    assert claimed(make(tmp_path), "a") == ["a"]


# size


def test_many_keys_against_many_claims(tmp_path):
    number, live = 100_000, 50
    claims = make(tmp_path)
    held = [claims.claim([f"{k}-{n}" for n in range(2000)], everything)[0][0] for k in range(live)]
    keys = [f"item {n}" for n in range(number - live)] + [f"{k}-7" for k in range(live)]
    random.Random(0).shuffle(keys)
    started = time.monotonic()
    (mine,), waiting = claims.claim(keys, everything)
    took = time.monotonic() - started
    assert len(mine.keys) == number - live
    assert sorted(key for others in waiting for key in others.keys) == sorted(f"{k}-7" for k in range(live))
    assert len(waiting) == live
    assert list(mine.keys) == [key for key in keys if key.startswith("item")]
    assert took < 5, f"it took {took:.1f} s"
    for claim in (mine, *held):
        claim.close()


# threads, processes, forks


def test_threads_share_nothing_by_mistake(claims):
    """Threads that claim random keys at once, of one object or of their own: no two of them hold a key."""
    held: dict[str, int] = {}
    failed: list[BaseException] = []

    def run(seed: int) -> None:
        rng = random.Random(seed)
        own = make(Path(claims.folder)) if seed % 2 and isinstance(claims, FolderClaims) else claims
        try:
            for _ in range(60):
                mine, _ = own.claim(rng.sample([str(n) for n in range(20)], 8), everything)
                for claim in mine:
                    for key in claim.keys:
                        assert held.setdefault(key, seed) == seed, f"{key} has two holders"
                    time.sleep(0.0005)
                    for key in claim.keys:
                        del held[key]
                    claim.close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed, failed[0]


def claim_at_random(send: Any, folder: Path, seed: int, rounds: int) -> None:
    """Note who holds a key by a file that only one may create."""
    rng = random.Random(seed)
    claims = make(folder)
    for _ in range(rounds):
        mine, _ = claims.claim(rng.sample([str(n) for n in range(30)], 10), lambda free: [free[::2], free[1::2]])
        for claim in mine:
            marks = [folder / f"held-{key}" for key in claim.keys]
            for mark in marks:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            time.sleep(0.001 * rng.random())
            for mark in marks:
                mark.unlink()
            claim.close()
    send("done")


@pytest.mark.parametrize("rounds", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_processes_never_hold_the_same_key(tmp_path, rounds):
    children = [Child(claim_at_random, tmp_path, seed, rounds) for seed in range(6)]
    with killed_at_the_end(children):
        wait_for(children)
    assert [child.items for child in children] == [["done"]] * 6
    assert not files(tmp_path)


def test_a_fork_beside_a_claim_that_is_made_keeps_no_lock(tmp_path):
    """A process that was forked in that moment, by another thread, lives on with all that was open."""
    children = []

    def choose(free: list[str]) -> list[list[str]]:
        children.append(Child(lambda _: time.sleep(60)))
        return [free]

    (claim,), _ = make(tmp_path).claim(["a"], choose)
    with killed_at_the_end(children):
        done = threading.Event()

        def go_on() -> None:
            claimed(make(tmp_path), "b")
            done.set()

        threading.Thread(target=go_on, daemon=True).start()
        assert done.wait(5), "the lock is still held"
    claim.close()


def test_forked_processes_leave_their_parents_claims(tmp_path):
    claims = make(tmp_path)
    (claim,), _ = claims.claim(["a", "b"], everything)

    def end_it(_: Any) -> None:
        claim.close()
        assert claimed(claims, "ab") == []

    wait_for([Child(end_it)], 20)
    assert claimed(claims, "ab") == []
    claim.close()
    assert claimed(claims, "ab") == ["a", "b"]


def claim_and_hold(send: Any, claims: FolderClaims, key: str) -> None:
    send(claimed(claims, [key]))
    mine, _ = claims.claim([key], everything)
    send(os.path.basename(mine[0].path).split("-")[-2])
    time.sleep(60)


def test_forked_processes_own_what_they_claim(tmp_path):
    """Not their parent, which lives on when they are killed."""
    claims = make(tmp_path)
    claimed(claims, "x")  # the parent knows itself as an owner
    child = Child(claim_and_hold, claims, "a")
    with killed_at_the_end([child]):
        end = time.monotonic() + 20
        while len(child.received) < 2:
            assert time.monotonic() < end
            child.receive()
            time.sleep(0.005)
        assert child.items == [["a"], str(child.pid)]
        assert claimed(claims, "a") == []
        child.kill()
        assert claimed(claims, "a") == ["a"]


def test_claims_in_memory_are_not_held_in_forked_processes():
    """The threads that hold them are not there."""
    claims = MemoryClaims()
    (claim,), _ = claims.claim(["a"], everything)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(claimed(claims, "ab")))
    process.start()
    process.join(20)
    assert queue.get() == ["a", "b"]
    assert claimed(claims, "ab") == ["b"]
    claim.close()


def test_an_interruption_leaves_the_lock_free(tmp_path):
    child = Child(lambda _: make(tmp_path).claim(["a"], lambda _: os.kill(os.getpid(), signal.SIGKILL) or []))
    with contextlib.suppress(AssertionError):
        wait_for([child], 20)
    assert claimed(make(tmp_path), "a") == ["a"]


def test_nobody_claims_in_a_quiet_block(tmp_path):
    claims, order = make(tmp_path), []

    def claim() -> None:
        with make(tmp_path).claim(["a"], everything)[0][0]:
            order.append("claimed")

    thread = threading.Thread(target=claim)
    with claims.quiet() as holder:
        assert holder is None
        thread.start()
        time.sleep(0.1)
        order.append("quiet")
    thread.join()
    assert order == ["quiet", "claimed"]
    (mine,), _ = claims.claim(["a"], everything)
    with mine, make(tmp_path).quiet() as holder:
        assert holder is not None and f"process {os.getpid()} " in holder


def test_a_folder_that_is_moved_away_while_it_is_waited_for(tmp_path):
    """Who waits for the lock of the old folder takes that of the new one."""
    folder, made = tmp_path / "folder", []

    def restore() -> None:
        folder.mkdir()
        made.append(folder)

    claims = make(folder, restore=restore)
    found: list[list[str]] = []
    with make(folder).quiet():
        thread = threading.Thread(target=lambda: found.append(claims.claim(["a"], everything)[0][0].keys))
        thread.start()
        time.sleep(0.1)
        folder.rename(tmp_path / "away")
    thread.join()
    assert made == [folder] and found == [["a"]]
    assert len(list(folder.glob("*.claim"))) == 1 and not list((tmp_path / "away").glob("*.claim"))
    with pytest.raises(errors.CacheFolderError), FolderClaims(str(tmp_path / "none"), LOCK, lambda _: False).quiet():
        pass
