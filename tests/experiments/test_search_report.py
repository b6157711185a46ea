from types import SimpleNamespace

import numpy as np
import optuna
from report_contract import check_report

from architecture_search.report import describe_search, search_report
from cnnsvm.localization.architectures.iidnet import PUBLISHED


def test_found_and_published_stand_side_by_side():
    study = optuna.create_study(direction="maximize")
    state = optuna.trial.TrialState
    for value, ending in ((0.7, state.COMPLETE), (0.9, state.COMPLETE), (None, state.PRUNED)):
        study.add_trial(optuna.trial.create_trial(value=value, state=ending))
    proxy = SimpleNamespace(fit=np.arange(6), valid=np.arange(3), test=np.arange(2))
    proxy.options = SimpleNamespace(epochs=4)
    scores = {
        "published": [{"auc": 0.8, "iou": 0.5}, {"auc": 0.9, "iou": 0.6}],
        "found": [{"auc": 0.7, "iou": 0.4}, {"auc": float("nan"), "iou": 0.4}],
    }
    result = describe_search(study, proxy, scores)
    assert result["trials"] == {"finished": 2, "stopped": 1, "interrupted": 0}
    assert result["best_search_auc"] == 0.9
    assert result["images"] == {"fit": 6, "valid": 3, "test": 2}
    report = search_report({**result, "genotype": PUBLISHED, "published": PUBLISHED})
    _, text = check_report(report)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["published"] == ["published", "0.850", "0.100", "0.550", "0.100"]
    assert lines["found"] == ["found", "n/a", "n/a", "0.400", "0.000"]
    said = " ".join(text.split())
    assert "2 finished, 1 stopped, 0 interrupted; best AUC in the search 0.900" in said
