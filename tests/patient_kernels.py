"""A pytest plugin for nbval: a kernel that does not start is started again, twice at most.

Jupyter chooses a kernel's ports before the kernel opens them. Two kernels that start in the same
moment, one of each test process, can be given the same port; then one dies or never answers
(4 of 720 starts, four at a time).
"""

import nbval.kernel

ATTEMPTS = 3
PATIENCE = 30  # s, for one attempt
start_once = nbval.kernel.start_new_kernel


def start_new_kernel(startup_timeout=PATIENCE, **kwargs):
    """`nbval.kernel.start_new_kernel`, up to ATTEMPTS times, none longer than PATIENCE.

    Raises the last RuntimeError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return start_once(startup_timeout=min(startup_timeout, PATIENCE), **kwargs)
        except RuntimeError:
            if attempt == ATTEMPTS:
                raise


nbval.kernel.start_new_kernel = start_new_kernel
