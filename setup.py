"""Which folders the package is made of; everything else about it stands in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {
    "dspt_atlas": "dspt_atlas",
    "dspt_atlas.trainers": "trainers",
    "dspt_atlas.datasets": "datasets",
    "dspt_atlas.configs": "configs",
}

setup(
    packages=[
        *FOLDERS,
        *(f"{package}.{name}" for package, folder in FOLDERS.items() for name in find_packages(folder)),
    ],
    package_dir=FOLDERS,
    package_data={
        "dspt_atlas": ["report_page/*"],
        "dspt_atlas.datasets": ["embedded_data/*"],
        "dspt_atlas.configs": ["**/*.yaml"],
    },
)
