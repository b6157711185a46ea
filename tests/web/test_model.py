"""What a server says of its model."""

from types import SimpleNamespace

import numpy as np

from cnnsvm.report.judging import NO_TRACE, SAID, Judge
from cnnsvm.web.limits import Limits


def test_the_model_says_what_it_knows(client, judge, saved):
    said = client(max_files=3).get("/v1/model").json()
    assert (said["name"], said["model"], said["max_files"]) == ("model", judge.model, 3)
    assert [each["name"] for each in said["classes"]] == ["real", "fake"]
    (found,) = said["detectors"]
    assert str(saved.parent) not in str(said)
    assert found["rejection_threshold"] == judge.detector.rejection_threshold_
    assert any("other engine" in each or "another engine" in each for each in found["knows"])


def test_all_evidence_names_the_engines_of_its_cards():
    from cnnsvm.web.model import describe_model

    one = SimpleNamespace(model_id_="id", classes_=np.array(["a", "b"]), rejection_threshold_=0.9)
    one.embedder_ = []
    judge = Judge.__new__(Judge)  # loading all that ships takes seconds
    judge.combined = SimpleNamespace(generated=one, trace=one, region=one, false_alarms_=None)
    judge.detector, judge.whole, judge.origin = one, judge.combined, (None, None)
    judge.names, judge.nothing = [*SAID, "uncovered"], NO_TRACE
    said = describe_model(judge, Limits())
    assert [each.name for each in said.detectors] == ["generated", "trace", "region"]
    assert {"opencv-telea", "self-blend"} <= set(said.detectors[1].engines)
    assert all(each.says != each.name for each in said.classes)
