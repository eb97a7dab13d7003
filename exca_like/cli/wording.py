"""Messages of the package in the words of the shell."""

import re
import shlex

_IN_SHELL = {
    "print the catalog to see which there are": "`exca-like ls` shows which there are",
    "explain() shows how": "`exca-like why {uid}` shows how",
    "mode='retry' computes again": "`exca-like retry {uid} --yes` computes it again",
    "call the method again to run it again": "the same command runs it again, as does `exca-like retry {uid} --yes`",
    "run it again with mode='retry'": "compute it again: `exca-like retry {uid} --yes`",
    "compute again with mode='force'": "compute again with infra.mode=force (or the name of its infra)",
}
"""What messages advise in Python, and what does the same here."""
_UID = re.compile(r"""(?<!\S)[^\s/'"(\[]+,[^\s/'"]+/[^\s'"]*[^\s:;,.'"]""")


def in_shell(message: object, uid: str | None = None, folder: object = None) -> str:
    """A message with the commands that do what it advises, for the entry that it is of, in a folder that was given."""
    text = str(message)
    named = _UID.search(text)
    found = uid or (named[0] if named else None)
    of = "UID" if found is None else shlex.quote(found)
    if folder is not None:
        of += f" --folder {shlex.quote(str(folder))}"
    for in_python, here in _IN_SHELL.items():
        text = text.replace(in_python, here.format(uid=of))
    return text
