"""A real language model on this machine: no network, no key, and a toy's quality.

The llama.cpp server inside xllamacpp is one process that speaks OpenAI's wire format on loopback.
We only find it a model, set it up, and say when it answers.

    commands.py   the options
    weights.py    which file the model is in
    server.py     from the file to a server that answers, and its end
"""
