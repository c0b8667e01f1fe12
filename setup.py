import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "dspt_atlas" / "__init__.py").read_text(encoding="utf-8")).group(1)


def mapped_packages(package, folder):
    """Return a folder's packages under the name that they are imported by."""
    return [package, *(f"{package}.{name}" for name in find_packages(folder))]


setup(
    name="dspt-atlas",
    version=VERSION,
    description="DSPT and ATLaS: prompt learning robust to wrong labels, for the CoOp family of code",
    license="MIT",
    packages=[
        *mapped_packages("dspt_atlas", "dspt_atlas"),
        *mapped_packages("dspt_atlas.trainers", "trainers"),
        *mapped_packages("dspt_atlas.datasets", "datasets"),
        "dspt_atlas.configs",
    ],
    package_dir={
        "dspt_atlas": "dspt_atlas",
        "dspt_atlas.trainers": "trainers",
        "dspt_atlas.datasets": "datasets",
        "dspt_atlas.configs": "configs",
    },
    package_data={
        "dspt_atlas": ["report_page/*"],
        "dspt_atlas.datasets": ["embedded_data/*"],
        "dspt_atlas.configs": ["**/*.yaml"],
    },
    python_requires=">=3.10",
    # A `dassl` is needed too: upstream's, or `pip install ./engine`.
    install_requires=[
        "torch>=2.2",
        "torchvision",
        "yacs",
        "tqdm",
        "tabulate",
        "numpy",
        "Pillow>=10.1",  # older ones turn TIFFs and still call them turned
        "matplotlib",
        "scikit-learn",
        "POT",
        "filelock",
        "jinja2",
        "rf-clip",
        "xxhash",
    ],
    extras_require={
        "browser": ["playwright"],
        "labels": ["cleanlab"],
        "ray": ["ray"],
        "slurm": ["submitit"],
        "test": [
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "bandit",
            "pip-audit",
            "resvg-py",
            "playwright",
        ],
    },
)
