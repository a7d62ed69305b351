import pytest

from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama


@pytest.fixture(scope="session")
def folders(t5_folder, t5_v1_1_folder, tmp_path_factory):
    """A tiny backbone of every family."""
    return {
        "t5": t5_folder,
        "t5-v1.1": t5_v1_1_folder,
        "gpt2": save_tiny_gpt2(tmp_path_factory.mktemp("gpt2")),
        "llama": save_tiny_llama(tmp_path_factory.mktemp("llama")),
    }
