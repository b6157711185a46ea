import pytest
import torch

from cnnsvm.features.devices import DeviceError, autocast, choose_device, choose_precision

CPU = torch.device("cpu")


def test_auto_takes_what_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


def test_a_missing_cuda_device_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"'cuda:3'.*sees 1 CUDA.*Use device='auto'"):
        choose_device("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "mps:0", "meta"])
def test_other_devices_are_refused(name):
    with pytest.raises(DeviceError, match=name.split(":")[0]):
        choose_device(name)


def test_the_share_of_gpu_memory_is_set(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *args: calls.append(args)
    )
    choose_device("cuda:1", gpu_memory_fraction=0.25)
    assert calls == [(0.25, 1)]


def test_precisions():
    assert choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    assert choose_precision("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(DeviceError, match="needs CUDA"):
        choose_precision("float16", CPU)
    with pytest.raises(DeviceError, match="got 'half'"):
        choose_precision("half", CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_runs_in_the_precision(dtype):
    with autocast(CPU, dtype):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == dtype


def test_the_share_of_the_current_gpu_is_set_by_its_number(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *args: calls.append(args)
    )
    choose_device("cuda", gpu_memory_fraction=1)
    assert calls == [(1.0, 1)]
