"""The trained models as files that run without Keras, beside their weights.

`python -m experiments export` writes them, and their SHA-256 into the cards;
`helpers.models.export` says what is in them.
"""

from pathlib import Path

from helpers import models
from helpers.models import export


def export_all(folder: Path | None = None) -> list[Path]:
    """Export what a folder holds of the methods, both shipped ones by default; gives the paths.

    Raises models.WeightsError where there are no weights.
    """
    found = [one for one in models.METHODS if models.weights_path(one, folder).exists()]
    return [path for method in found or models.METHODS for path in export.write(method, folder)]
