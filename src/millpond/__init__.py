"""millpond: an asynchronous job queue with rate-aware scheduling for language-model calls."""

__version__ = "0.1.0"
