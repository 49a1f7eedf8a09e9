"""Settings of all tests: hypothesis has no deadline, for how long an example takes says more about the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("azr", deadline=None)
settings.load_profile("azr")
