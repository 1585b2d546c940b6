"""Public data and what is made of them."""
