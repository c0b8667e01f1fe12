"""Which packages there are: dspt_atlas and, by its links to them, trainers, datasets and configs."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["dspt_atlas", "dspt_atlas.*"]),
    package_data={
        "dspt_atlas": ["configs/**/*.yaml"],
        "dspt_atlas.tools": ["fork/*.sh"],
        "dspt_atlas.report.page": ["assets/*"],
        "dspt_atlas.datasets": ["embedded_data/*"],
    },
)
