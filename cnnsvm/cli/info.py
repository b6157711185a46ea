"""Say what is installed, what runs here, and whether it works."""

import argparse
import time


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm info``."""
    parser.epilog = (
        "Exit status: 0, or 1 if the self-test fails. Paste the output into a report. Of a model "
        "that ships a line says what it knows, `cnnsvm models NAME` the whole."
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--no-test", action="store_true", help="load and judge nothing")


def main(args: argparse.Namespace) -> int:
    """Print facts, what each model that ships knows, and the outcome of the self-test."""
    facts = _facts(args.device)
    for name, value in facts.items():
        print(f"{name:14} {value}")
    for name, learnt in _knowledge().items():
        print(f"{'model':14} {name} learnt from {learnt}")
    if args.no_test:
        return 0
    started = time.perf_counter()
    try:
        said = _self_test(args.device)
    except Exception as error:  # what fails here is what the command is for
        print(f"{'self-test':14} failed: {type(error).__name__}: {error}")
        return 1
    print(f"{'self-test':14} passed in {time.perf_counter() - started:.1f} s: {said}")
    return 0


def _facts(device: str) -> dict[str, str]:
    from pathlib import Path

    import cnnsvm
    from cnnsvm.data.decoding import FORMATS, MISSING
    from cnnsvm.evaluation.protocol import describe_environment
    from cnnsvm.io.machine import processor_flags

    environment = {name: str(value) for name, value in describe_environment(device).items()}
    extras = "".join(f"; {name} needs 'cnnsvm[{extra}]'" for name, extra in MISSING.items())
    return environment | {
        "processor": processor_flags(),
        "reads": ", ".join(FORMATS) + extras,
        "installed in": str(Path(cnnsvm.__file__).parent),
    }


def _knowledge() -> dict[str, str]:
    from cnnsvm.cli.models import shipped
    from cnnsvm.report.knowledge import summary_of

    return {name: summary_of(folder) for name, folder in shipped().items()}


def _self_test(device: str) -> str:
    """Load all that ships, whose files are checked on loading, and judge an image made here."""
    import numpy as np

    from cnnsvm import InpaintDetector, InpaintLocalizer
    from cnnsvm.report.judging import Judge

    judge = Judge(device=device)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    [row] = judge.rows([noise])
    total = sum(row[f"probability_{name}"] for name in judge.names)
    if not abs(total - 1) < 0.01:
        raise ValueError(f"the probabilities of noise sum to {total}, not to 1")
    small = InpaintDetector.from_pretrained("cifake", device=device).predict_proba(
        [noise[:32, :32]]
    )
    share = InpaintLocalizer.from_pretrained().set_params(device=device).predict([noise])[0].mean()
    if not (np.isfinite(small).all() and 0 <= share <= 1):
        raise ValueError("the detector of small images or the localiser gives no finite number")
    return f"an image of noise is {row['verdict']}; models {judge.model}"
