"""What soak.py is made of: a job in forked processes, and what is done to it."""
