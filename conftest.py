"""Settings shared by all tests and by the code blocks of the docs."""

import pytest

collect_ignore = ["docs/conf.py"]


@pytest.fixture(autouse=True)
def _own_folder_for_code_blocks(request, tmp_path_factory, monkeypatch):
    """Code blocks of the docs run in an empty folder, so that they may write to `"cache"` as a reader would."""
    if request.node.get_closest_marker("markdown-docs") is not None:
        monkeypatch.chdir(tmp_path_factory.mktemp("code_block"))
