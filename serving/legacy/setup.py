"""Source package of the legacy routine. Run where `python -m serving.build --legacy` has staged the packages."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="understudy_prediction",
    version="0.1.0",
    description="Understudy as a custom prediction routine: ModelPrediction.from_path and .predict.",
    python_requires=">=3.11",
    packages=find_packages(include=["liveframe*", "understudy*", "serving*"]),
    package_data={"": ["*.npy", "*.npz", "*.json"]},
    install_requires=Path(__file__).with_name("requirements.txt").read_text().split(),
)
