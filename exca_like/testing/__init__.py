"""Contract tests for those who write handlers: what a `CacheDict` promises, tried out with values of their own.

`check_handler` uses nothing but ``assert``, so that it works under any test runner, and none is needed to import it.
"""

from exca_like.testing.comparing import same
from exca_like.testing.handlers import check_handler

__all__ = ["check_handler", "same"]
