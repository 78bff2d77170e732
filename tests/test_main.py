import signal
import subprocess
import sys


def test_ctrl_c_while_the_program_still_loads_ends_it_without_a_traceback() -> None:
    program = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "accmpeg", "version"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr is not None
    with program:
        loaded = next(line for line in program.stderr if line.rstrip().endswith("accmpeg.errors"))
        program.send_signal(signal.SIGINT)
        after = program.stderr.read()
    assert loaded
    assert "Traceback" not in after
    assert program.returncode == -signal.SIGINT


def test_closed_streams_end_nothing() -> None:
    command = f"exec {sys.executable} -m accmpeg doctor --json <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
