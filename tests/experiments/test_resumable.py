import pandas as pd
import pytest

from resumable import check_target


def test_a_target_must_tell_originals_from_all_others():
    manifest = pd.DataFrame(
        {
            "variant": ["original", "spliced", "regenerated"],
            "label": [0, 1, 1],
            "engine": [None, "a", "b"],
            "sheet": ["z", "a", "b"],
        }
    )
    check_target(manifest, "label")
    check_target(manifest, "variant")
    for target, message in (
        ("nothing", "must name a column .* got 'nothing'"),
        ("engine", "is empty in some rows"),
        ("sheet", "sorts first, which is 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_target(manifest, target)
