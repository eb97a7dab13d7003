"""The bar of a map, and what is said to those who wait."""

import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

import exca_like
from exca_like import progress


class Numbers(pydantic.BaseModel):
    bad: tuple[int, ...] = ()
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str, exclude_from_cache_uid=["bad"])
    def compute(self, items: list[int]) -> Iterator[int]:
        for item in items:
            if item in self.bad:
                raise ValueError(item)
            yield item


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Shows all, at once; gives what was shown."""
    monkeypatch.setenv("EXCA_LIKE_PROGRESS", "1")
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr("exca_like.mapping._SHOWN_S", 0.0)
    return lambda: capsys.readouterr().err


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local"])
def test_a_bar_counts_what_is_cached_done_and_failed(tmp_path, shown, cluster):
    list(Numbers(infra={"folder": tmp_path}).compute(range(20)))
    shown()
    with pytest.raises(ValueError, match="'25'"):
        list(Numbers(bad=(25,), infra={"folder": tmp_path, "cluster": cluster, "max_jobs": 2}).compute(range(50)))
    last = re.split(r"[\r\n]+", shown().strip())[-1]
    assert "Numbers.compute" in last
    assert re.search(r"100%.* 50/50 .*item/s, cached=20, failed=1\]", last)


def test_what_is_cached_shows_no_bar(tmp_path, shown):
    list(Numbers(infra={"folder": tmp_path}).compute(range(5)))
    shown()
    assert list(Numbers(infra={"folder": tmp_path}).compute(range(5))) == list(range(5))
    assert not shown()


def test_quick_calls_draw_no_bar(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_S", 60.0)
    list(Numbers(infra={"folder": tmp_path}).compute(range(100)))
    assert not shown()


@pytest.mark.parametrize("setting", ["", "0"])
def test_there_is_no_bar_where_nobody_looks(tmp_path, shown, monkeypatch, setting):
    monkeypatch.setenv("EXCA_LIKE_PROGRESS", setting)
    list(Numbers(infra={"folder": tmp_path}).compute(range(100)))
    assert not shown()


def test_without_tqdm_there_is_none(tmp_path, shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert list(Numbers(infra={"folder": tmp_path}).compute(range(100))) == list(range(100))
    assert not shown()


@pytest.mark.parametrize("setting", ["", "0"])
def test_who_waits_is_told_once_for_what(tmp_path, monkeypatch, capsys, setting):
    monkeypatch.setenv("EXCA_LIKE_PROGRESS", setting)
    monkeypatch.setattr("exca_like.engine._PATIENCE_S", 0.05)
    model = Numbers(infra={"folder": tmp_path})
    model.infra.uid_folder(create=True)
    (claim,), _ = model.infra._claims().claim(["1", "2"], lambda free: [free])
    threading.Timer(1.0, claim.close).start()
    assert list(Numbers(infra={"folder": tmp_path}).compute([1, 2])) == [1, 2]
    said = capsys.readouterr().err
    assert said.count("waiting for 2 item(s) of") == (0 if setting else 1)
    assert setting or re.search(r"computed by process \d+ of .* on .*to break this, end it, or .* remove .*\.claim", said)
