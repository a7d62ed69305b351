"""What pyproject.toml cannot say: the packages found, and ``configs/`` of the checkout as ``dept_vl/configs``.

Folders of data are packages too: setuptools warns, a page each, of those that could be imported and are not named.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(
            include=["dept_vl*", "data_prep*"],
            exclude=["*.__pycache__*", "data_prep.demo_models*"],  # that recipe: no user's
        ),
        "dept_vl.configs",
        *(f"dept_vl.configs.{folder}" for folder in find_namespace_packages("configs")),
    ],
    package_dir={"dept_vl.configs": "configs"},
    package_data={"dept_vl": ["py.typed", "assets/**/*"], "dept_vl.configs": ["**/*.yaml"]},
)
