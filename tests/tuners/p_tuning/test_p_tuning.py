"""P-tuning is the prompt that its network makes."""

import torch

from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from tests.tuners.adapted import make, settings

SIZES = {"num_virtual_tokens": 4, "hidden_size": 10}


def test_parameters_on_t5_base():
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("p-tuning"), max_source_length=256, feature_dim=None
    )
    assert dict(model.parameter_budget().groups) == {"prompt_network": 1_261_088}


def test_its_prompt_written_out(folders):
    tuner = make(folders["t5"], settings("p-tuning", **SIZES), moved=0.3).tuner
    e, (w1, b1), (w2, b2) = tuner.embeddings, tuner.network_in.parameters(), tuner.network_out.parameters()
    text = torch.randn(2, 5, 16)
    with torch.no_grad():
        joined = tuner.embed(text)
        for row in range(2):
            assert torch.equal(joined[row, 4:], text[row])
            for token in range(4):
                hidden = torch.tensor([torch.tanh(w1[unit] @ e[token] + b1[unit]) for unit in range(10)])
                prompt = torch.stack([w2[feature] @ hidden + b2[feature] for feature in range(16)])
                torch.testing.assert_close(joined[row, token], prompt, rtol=1e-5, atol=1e-5)


def test_it_starts_as_torch_starts_embeddings_and_linear_layers(folders):
    tuner = make(folders["t5"], settings("p-tuning", num_virtual_tokens=400, hidden_size=400)).tuner
    assert abs(tuner.embeddings.std() - 1) < 0.05
    for layer in (tuner.network_in, tuner.network_out):
        bound = layer.in_features**-0.5
        for tensor in (layer.weight, layer.bias):
            assert tensor.abs().max() <= bound
        assert abs(layer.weight.std() - bound / 3**0.5) < 0.03 * bound
