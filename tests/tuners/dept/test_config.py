from dataclasses import replace

import pytest

from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig
from dept_vl.tuners.stack.config import StackConfig

T5_BASE = TunerContext(d_model=768, max_source_length=256)


@pytest.mark.parametrize(
    ("target", "source", "length", "pair"),
    [
        (DeptConfig(), DeptConfig(), 512, (40, 45)),  # by the budget alone (40, 36)
        (DeptConfig(num_virtual_tokens=60), DeptConfig(num_virtual_tokens=60), 512, (60, 30)),
        (DeptConfig(num_virtual_tokens=60, rank=30), DeptConfig(num_virtual_tokens=60, rank=30), 512, (60, 30)),
        (DeptConfig(), DeptConfig(), 348, (40, 45)),  # by the budget alone none
    ],
)
def test_a_source_of_another_length_has_the_targets_pair(target, source, length, pair):
    fitted = source.as_source_of(target, T5_BASE, length)
    budget = fitted.budget(768, length)
    assert (budget.num_virtual_tokens, budget.rank) == pair
    assert replace(fitted, num_virtual_tokens=None, rank=None, allow_nearest=False) == DeptConfig()


@pytest.mark.parametrize(
    ("source", "length"),
    [
        (DeptConfig(), 256),  # the budget gives the target's pair
        (DeptConfig(num_virtual_tokens=60), 512),  # told otherwise
        (DeptConfig(num_virtual_tokens=60, rank=24), 512),
        (DeptConfig(budget_tokens=50), 512),
        (PromptTuningConfig(), 512),
    ],
)
def test_what_a_source_is_told_stays(source, length):
    assert source.as_source_of(DeptConfig(), T5_BASE, length) is source


def test_the_parts_of_a_stack_have_those_of_the_targets_parts():
    stack = StackConfig(parts={"dept": {}, "lora": {}})
    fitted = stack.as_source_of(stack, T5_BASE, 512)
    assert fitted.parts["dept"] == DeptConfig(num_virtual_tokens=40, rank=45, allow_nearest=True)
    assert fitted.parts["lora"] == stack.parts["lora"]
    assert stack.as_source_of(stack, T5_BASE, 256) is stack
