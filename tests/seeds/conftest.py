"""The pages here are run by tests of their own, not as code blocks of the docs."""

collect_ignore_glob = ["*.md"]
