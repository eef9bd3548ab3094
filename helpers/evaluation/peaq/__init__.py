"""PEAQ, basic version (ITU-R BS.1387-1): the `ear`, and the `grade` that a network gives.

Taught in `appendix/05_listeners`.
"""

from helpers.evaluation.peaq.grade import peaq

__all__ = ["peaq"]
