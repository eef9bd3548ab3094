"""One switch for tests and impatient readers: DENOISER_QUICK=1 makes everything smaller.

A quick run changes sizes, never code paths.
"""

import os

QUICK = os.environ.get("DENOISER_QUICK", "") not in ("", "0")


def size(full, quick):
    """`full`, or `quick` where the environment variable DENOISER_QUICK is set."""
    return quick if QUICK else full
