"""The trained models as files that run without Keras, beside their weights.

`python -m experiments export` writes them; `helpers.models.export` says what is in them.
"""

from pathlib import Path

from helpers import models, store
from helpers.models import export


def export_all(folder: Path | None = None) -> list[Path]:
    """Write the exports of both shipped methods, or of those in a folder; gives their paths."""
    written = []
    for method in models.METHODS:
        digest = models.weights_sha256(method, folder)
        binary, index = export.web_weights(models.load(method, folder), digest)
        place = models.weights_path(method, folder).parent / "web"
        for name, content in ((f"{method}.bin", binary), (f"{method}.json", index.encode())):
            with store.atomic_path(place / name, overwrite=True) as temporary:
                temporary.write_bytes(content)
            written.append(place / name)
    return written
