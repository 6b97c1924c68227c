"""The input of a run is of no use, and nothing of it was sent.

In a file of its own, for the template and the records both raise it; others import it from
`millpond.producer.records`.
"""

from millpond.errors import Refused


class BadInput(Refused):
    code = "bad_input"
