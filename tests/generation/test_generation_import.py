import subprocess
import sys


def test_importing_generation_does_not_load_torch():
    code = "import sys, cnnsvm.generation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
