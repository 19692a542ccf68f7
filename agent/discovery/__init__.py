"""Ways to learn which servers there are: a file each, after ``agent/finder.py``."""
