"""Tasks with tags and comments: the example feature.

To be rid of it: delete this folder, its tests, its line in ``app/api.py`` and its revision.
"""
