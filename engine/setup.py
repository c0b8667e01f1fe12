import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.findall(r'__version__ = "(.+)"', (HERE / "dassl" / "__init__.py").read_text(encoding="utf-8"))[0]

setup(
    name="dspt-atlas-engine",
    version=VERSION,
    description="An import-compatible `dassl` engine for CoOp-family prompt learning on current PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["dassl", "dassl.*"]),
    python_requires=">=3.10",
    # The last three are imported on first use only: `import dassl.engine` works without them.
    install_requires=["torch>=2.2", "torchvision", "numpy", "Pillow>=10.1", "yacs", "tqdm", "tabulate", "tensorboard"],
    extras_require={"drive": ["gdown"]},  # DatasetBase.download_data
)
