"""What pyproject.toml cannot say: the packages found, and ``configs/`` of the checkout as ``dept_vl/configs``."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(
            include=["dept_vl*", "data_prep*"], exclude=["data_prep.demo_models*"]
        ),  # that recipe: no user's
        "dept_vl.configs",
    ],
    package_dir={"dept_vl.configs": "configs"},
    package_data={"dept_vl": ["py.typed", "assets/**/*"], "dept_vl.configs": ["**/*.yaml"]},
)
