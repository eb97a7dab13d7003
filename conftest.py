"""Settings shared by all tests and by the code blocks of the docs."""

import contextlib
import faulthandler
import fcntl
import os
import pathlib
import sys
import tempfile

import pytest

_EXIT_S = 120  # seconds that the interpreter may take to end


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long form of tests that have one")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long form: run with --long"))


def pytest_unconfigure():
    """An interpreter that does not end says what its threads wait for, instead of keeping CI waiting."""
    faulthandler.dump_traceback_later(_EXIT_S, exit=True)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path):
    """Code blocks are looked for in pages only: in modules, the plugin would have to import every file there is."""
    collectors = yield
    if file_path.suffix == ".py":
        return [collector for collector in collectors if type(collector).__name__ != "MarkdownDocstringCodeModule"]
    return collectors


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_user(tmp_path_factory):
    """Tests find no settings file of whoever runs them; settings in the environment are taken out."""
    from exca_like import sources
    from exca_like.infra.resources import JOB_SETTINGS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for name in (*JOB_SETTINGS, *sources.TOOL_SETTINGS, "mode"):
            patch.delenv(f"EXCA_LIKE_{name.upper()}", raising=False)
        patch.setenv("EXCA_LIKE_COUNT_HITS", "0")  # many tests look at all that is in a folder, whenever that would be written
        yield


@pytest.fixture
def kills_one_at_a_time():
    """Of tests whose jobs are killed: the kernel only says how many processes it has killed, on the whole machine."""
    with open(pathlib.Path(tempfile.gettempdir(), f"exca-like-kills-{os.getuid()}"), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _surroundings_of_code_blocks(request, tmp_path_factory, monkeypatch):
    """Code blocks run in an empty folder, so that they may write to `"cache"` as a reader would, and print nothing."""
    if request.node.get_closest_marker("markdown-docs") is not None:
        from exca_like import watching

        monkeypatch.chdir(tmp_path_factory.mktemp("code_block"))
        monkeypatch.setattr(watching, "_told", set())  # what warns in a process of its own warns here
        monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        # the plugin turns capturing off; captured output is shown for blocks that fail
        capture = request.config.pluginmanager.getplugin("capturemanager")
        monkeypatch.setattr(capture, "global_and_fixture_disabled", contextlib.nullcontext)
