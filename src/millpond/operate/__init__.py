"""What operators do: look at how things stand, at the books, and change what holds."""
