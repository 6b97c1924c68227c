"""`python -m millpond.local`: the local model without the rest of the command line."""

from millpond.local.commands import app

if __name__ == "__main__":
    app(prog_name="millpond local")
