"""In which folder the result of each call of a memoised function is."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exca_like import content, layout
from exca_like.infra.calls import Call
from exca_like.layout import EntryFolder
from exca_like.memos.options import Options
from exca_like.memos.paths import Template, default_root, script_name, text_of
from exca_like.names import module_name


class Places:
    """The folders of a memoised function.

    Parameters
    ----------
    function:
        The function.
    parameters:
        Its parameters, by name.
    options:
        Where results are, below the folder.
    folder, version:
        Of its infra.
    """

    def __init__(
        self, function: Any, parameters: Mapping[str, Any], options: Options, folder: str | Path | None, version: str
    ) -> None:
        self._function = function
        self._folder = folder
        self._own = options.prefix
        self._version = version
        groups = "".join(f"/{name}={{{name}}}" for name in options.group_by)
        text = options.path or f"{{function}}{groups}"
        self._template = Template(f"{options.subdir}/{text}" if options.subdir else text, parameters)

    @functools.cached_property
    def root(self) -> str:
        """The folder of all of them."""
        return default_root() if self._folder is None else layout.absolute(self._folder)

    @functools.cached_property
    def name(self) -> str:
        """The function, as it is named on disk."""
        if self._own is not None:
            return f"{self._own},{self._version}"
        module = module_name(self._function)
        if self._function.__module__ == "__main__" and self._folder is None:
            module = script_name(self.root) or module  # two scripts of a project may have one name
        return f"{module}.{self._function.__qualname__.replace('<locals>.', '')},{self._version}"

    @functools.cached_property
    def pattern(self) -> str:
        """What their paths below `root` look like, with ``*`` for what changes from call to call."""
        return self._template.filled(dict.fromkeys(self._template.fields, "*") | {"function": self.name})

    def of(self, call: Call) -> EntryFolder:
        """The folder that the result of a call is in."""
        fields = self._template.fields
        if fields == ["function"]:  # as usual
            return EntryFolder(self.root, self.pattern)
        # what stands alone in a path must tell functions and versions apart, too
        alone = "" if "function" in fields else f"-{content.digest(self.name)[:4].hex()}"
        texts = {"function": self.name, "uid": f"{call.key}{alone}"}
        texts |= {name: text_of(call.values[name]) for name in fields if name not in texts}
        return EntryFolder(self.root, self._template.filled(texts))
