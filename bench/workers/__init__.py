"""What a worker costs and how fast it is, beside other people's: `field.py` says who and what."""
