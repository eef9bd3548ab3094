"""The experiments behind the course's results: what takes longer than a chapter.

`python -m experiments NAME`; README.md says which file of `data/results` each one fills, in how
many minutes, and who reads it. Nothing imports this folder.
"""
