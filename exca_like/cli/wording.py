"""Messages of the package in the words of the shell."""

import re

_IN_SHELL = {
    "print the catalog to see which there are": "`exca-like ls` shows which there are",
    "explain() shows how": "`exca-like why {uid}` shows how",
    "mode='retry' computes again": "`exca-like retry {uid} --yes` computes it again",
    "call the method again to run it again": "the same command runs it again, as does `exca-like retry {uid} --yes`",
    "run it again with mode='retry'": "compute it again: `exca-like retry {uid} --yes`",
    "compute again with mode='force'": "compute again with infra.mode=force",
}
"""What messages advise in Python, and what does the same here."""
_UID = re.compile(r"\S+,\S+/\S+[^\s:;,.]")


def in_shell(message: object, uid: str | None = None) -> str:
    """A message with the commands that do what it advises, for the entry that it is of."""
    text = str(message)
    named = _UID.search(text)
    of = uid or (named[0] if named else "UID")
    for in_python, here in _IN_SHELL.items():
        text = text.replace(in_python, here.format(uid=of))
    return text
