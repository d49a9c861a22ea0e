"""The pieces of `manage.py up`: what must be true before it starts, what it starts, and how that ends."""
