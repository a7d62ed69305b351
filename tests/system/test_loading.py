"""What a loader process raises is raised as it was there, and the process ends."""

import multiprocessing

import pytest
from torch.utils.data import DataLoader, Dataset

from dept_vl.errors import ConfigError, DataError, NoFeaturesError
from dept_vl.system import signals
from dept_vl.system.loading import read_loaded


class Failing(Dataset):
    """Gives 0 and 1, and then an error."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, place):
        if place < 2:
            return place
        try:
            raise OSError("cannot be read")
        except OSError as error:
            raise self.error from error


def loader(error, num_workers):
    ignoring = signals._ignore_in_worker  # as during training, where a signal is for the main process
    return DataLoader(Failing(error), batch_size=None, num_workers=num_workers, worker_init_fn=ignoring)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", [DataError("a.png: damaged\nsecond line"), ConfigError("x"), NoFeaturesError("x")])
def test_an_error_has_its_own_message_and_the_process_ends(error, num_workers):
    read, seen = read_loaded(loader(error, num_workers)), []
    with pytest.raises(type(error)) as raised:
        seen.extend(one for one in read)
    assert str(raised.value) == str(error)
    del raised
    assert multiprocessing.active_children() == []


def test_what_is_loaded_comes_in_order():
    assert list(read_loaded(DataLoader(range(5), batch_size=None, num_workers=1))) == [0, 1, 2, 3, 4]
