"""Hypothesis profiles: ``ci``, and ``long`` (``--long`` or ``HYPOTHESIS_PROFILE=long``) with ten times as many examples."""

import os
import sys

import hypothesis

_CHECKS = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large, hypothesis.HealthCheck.filter_too_much]
_COMMON = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": _CHECKS}

hypothesis.settings.register_profile("ci", max_examples=100, derandomize=True, **_COMMON)
hypothesis.settings.register_profile("long", max_examples=1000, **_COMMON)
hypothesis.settings.load_profile("long" if "--long" in sys.argv else os.environ.get("HYPOTHESIS_PROFILE", "ci"))
