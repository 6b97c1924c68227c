"""One small adapter for each provider: how a request is written and what a reply means."""
