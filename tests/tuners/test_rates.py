import pytest

from dept_vl.errors import ConfigError
from dept_vl.settings.load import config_from_tree
from dept_vl.tuners.rates import rate_number


def dept_config(**settings):
    return config_from_tree({"task": "sst2", "tuner": {"name": "dept", **settings}}).tuner


@pytest.mark.parametrize(
    ("given", "read"),
    [(0.3, 0.3), ("0.3", 0.3), ("1e-3", 1e-3), (1, 1.0), ("0.3x", "0.3x"), ("1e-1x", "0.1x"), ("2x", "2.0x")],
)
def test_a_rate_is_a_number_or_a_multiple(given, read):
    config = dept_config(lr=given, lowrank_lr=given)
    assert (config.lr, config.lowrank_lr) == (read, read)
    assert rate_number(config.lr) == float(str(read).removesuffix("x"))
    assert dept_config(lr=config.lr) == dept_config(lr=given)


@pytest.mark.parametrize("given", ["x", "-1x", "0x", "nanx", "infx", "fastx", "1e999x", "0.3 xx"])
def test_what_is_no_multiple_is_refused(given):
    with pytest.raises(ConfigError) as caught:
        dept_config(lr=given)
    assert str(caught.value) == f"tuner.lr: should be a number above 0 before the x, as in 0.3x, got {given!r}"


@pytest.mark.parametrize(
    ("given", "said"),
    [(0, "should be greater than 0"), ("fast", "should be a valid number"), (None, "should be a valid number")],
)
def test_what_is_no_rate_is_refused(given, said):
    with pytest.raises(ConfigError, match=rf"^tuner\.lr: {said}"):
        dept_config(lr=given)
