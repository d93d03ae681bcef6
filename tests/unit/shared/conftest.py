"""Settings of the property tests, and what several of them draw."""

from hypothesis import settings

# A time limit an example would make the result depend on the machine's load.
settings.register_profile("cloister", deadline=None)
settings.load_profile("cloister")
