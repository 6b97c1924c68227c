"""`millpond run FILE`: a file of prompts becomes a file of answers, on one command."""
