"""Show what is in a data set: one HTML page to look at before anything is fitted."""

import argparse
import time
from pathlib import Path

MAX_IMAGES = 1000
MAX_MEGAPIXELS = 2000


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm explore``."""
    parser.epilog = (
        "Headers are read of every image, pixels of a sample of whole sources. Bad images are "
        "listed on the page and stop nothing."
    )
    what = "manifest, records, Real/Fake tree, images, or an archive of one [embedded samples]"
    parser.add_argument("--data", help=what)
    parser.add_argument(
        "--out",
        type=Path,
        help="the page; archives are unpacked beside it [runs/NAME OF THE DATA/explore.html]",
    )
    parser.add_argument("--groups", help="what names the source: a pattern or a CSV table")
    parser.add_argument(
        "--sample", type=int, default=MAX_IMAGES, help="images to decode, at most [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample [%(default)s]")


def main(args: argparse.Namespace) -> int:
    """Read, explore, write the page."""
    from cnnsvm.audit.exploration import explore
    from cnnsvm.cli.running import command, data_and_out
    from cnnsvm.data.readers import open_dataset, write_samples
    from cnnsvm.io.files import write_text
    from cnnsvm.report import render_html, render_text
    from cnnsvm.report.exploration import exploration_report

    started = time.perf_counter()
    name, out = data_and_out(args, "explore.html")
    work = out.parent / "data"
    if args.data:
        manifest = open_dataset(args.data, work / "unpacked", groups=args.groups, skip_bad=True)
    else:
        manifest = write_samples(work / "samples")
    found = explore(
        manifest,
        max_images=args.sample,
        max_megapixels=MAX_MEGAPIXELS,
        random_state=args.seed,
        n_jobs=-1,
    )
    facts = {
        "title": f"Data set: {name}",
        "command": command(),
        "data": args.data or "embedded samples",
        "seconds": time.perf_counter() - started,
        "random_state": args.seed,
    }
    report = exploration_report(found, facts)
    write_text(out, render_html(report))
    print(render_text(report, [out]), end="")
    return 0
