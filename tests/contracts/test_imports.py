"""What imports cost and do, in processes of their own."""

import subprocess
import sys

BLOCK_TORCHVISION = "import sys; sys.modules['torchvision'] = None; "


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_help_does_not_import_torch():
    code = (
        "import sys; from omg_cli.main import run; code = run([{arguments}]);"
        "print(code, sorted({{'torch', 'transformers', 'numpy', 'omgvision', 'PIL'}} & set(sys.modules)))"
    )
    for arguments in ("'--help'", "'segment', '--help'", "'--version'"):
        assert run(code.format(arguments=arguments)).splitlines()[-1] == "0 []"


def test_help_is_quick():
    """Under a second on an idle machine; processor time, since tests may share their processors."""
    code = "import time; from omg_cli.main import run; run(['--help']); print(time.process_time())"
    assert min(float(run(code).splitlines()[-1]) for _ in range(3)) < 1.0


def test_import_does_no_work_and_needs_no_optional_package():
    """No threads, no global settings of torch, no random numbers drawn."""
    absent = ("cv2", "timm", "supervision", "matplotlib", "gradio", "torchvision")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r}));" + (
        "import torch, random, threading, transformers; state = torch.get_rng_state().clone();"
        "threads = torch.get_num_threads(); dtype = torch.get_default_dtype(); grad = torch.is_grad_enabled();"
        "import omgvision;"
        "assert torch.equal(state, torch.get_rng_state()) and torch.is_grad_enabled() == grad;"
        "assert torch.get_num_threads() == threads and torch.get_default_dtype() == dtype;"
        "print(threading.active_count())"
    )
    assert run(code) == "1"


def test_auto_classes_know_the_model_after_the_import(tiny_model_dir):
    code = BLOCK_TORCHVISION + (
        "import omgvision; from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel;"
        "from transformers import AutoModelForImageSegmentation, AutoModelForUniversalSegmentation, AutoProcessor;"
        f"path = {str(tiny_model_dir)!r};"
        "print(type(AutoConfig.from_pretrained(path)).__name__, type(AutoModel.from_pretrained(path)).__name__,"
        " type(AutoModelForUniversalSegmentation.from_pretrained(path)).__name__,"
        " type(AutoModelForImageSegmentation.from_pretrained(path)).__name__,"
        " type(AutoImageProcessor.from_pretrained(path)).__name__, type(AutoProcessor.from_pretrained(path)).__name__,"
        " type(AutoBackbone.from_config(AutoConfig.from_pretrained(path).backbone_config)).__name__)"
    )
    assert run(code).split() == [
        "OmgSegConfig",
        "OmgSegModel",
        "OmgSegForUniversalSegmentation",
        "OmgSegForUniversalSegmentation",
        "OmgSegImageProcessor",
        "OmgSegProcessor",
        "ClipConvNextBackbone",
    ]
