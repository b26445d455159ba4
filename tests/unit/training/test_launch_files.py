"""The shipped launch files: accelerate reads them, and they say what they should."""

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from omgvision.training.run import LAUNCH_FILES

EXPECTED = {
    "single": (DistributedType.NO, 1, 1),
    "cpu_2": (DistributedType.MULTI_GPU, 2, 1),
    "ddp_8gpu": (DistributedType.MULTI_GPU, 8, 1),
    "fsdp2_8gpu": (DistributedType.FSDP, 8, 1),
    "zero2_8gpu": (DistributedType.DEEPSPEED, 8, 1),
    "zero3_8gpu": (DistributedType.DEEPSPEED, 8, 1),
    "multi_node": (DistributedType.MULTI_GPU, 32, 4),
}


def test_all_are_known():
    assert {path.stem for path in LAUNCH_FILES.glob("*.yaml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_them(name: str):
    config = load_config_from_file(str(LAUNCH_FILES / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    kind, processes, machines = EXPECTED[name]
    assert (config.distributed_type, config.num_processes, config.num_machines) == (kind, processes, machines)


def launched(name: str):
    command = ["--config_file", str(LAUNCH_FILES / f"{name}.yaml"), "-m", "omg_cli", "train", "nano", "steps=2"]
    arguments = launch_command_parser().parse_args(command)
    return _validate_launch_command(arguments)[0]


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_would_launch_them(name: str):
    arguments = launched(name)
    assert (arguments.training_script, arguments.training_script_args) == ("omg_cli", ["train", "nano", "steps=2"])
    assert arguments.multi_gpu == (EXPECTED[name][0] == DistributedType.MULTI_GPU)


def test_sliced_ones_reach_accelerates_own_settings():
    fsdp = launched("fsdp2_8gpu")
    assert (fsdp.use_fsdp, fsdp.fsdp_version, fsdp.fsdp_auto_wrap_policy) == (True, 2, "TRANSFORMER_BASED_WRAP")
    for stage in (2, 3):
        deepspeed = launched(f"zero{stage}_8gpu")
        assert (deepspeed.use_deepspeed, deepspeed.zero_stage, deepspeed.mixed_precision) == (True, stage, "no")
