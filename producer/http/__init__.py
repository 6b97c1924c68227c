"""An HTTP API without what it is about: routes in a table, strict requests, problems, streams."""
