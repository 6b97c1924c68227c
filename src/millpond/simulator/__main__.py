"""`python -m millpond.simulator`: the simulator without the rest of the command line."""

from millpond.simulator.commands import app

if __name__ == "__main__":
    app(prog_name="millpond simulator")
