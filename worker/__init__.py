"""Does the work: claims released calls, makes them, settles them."""
