import numpy as np
import pytest
import torch

from cnnsvm.features.backbones.network import collapse
from cnnsvm.features.finetuning import AuxiliaryLabels


def test_auxiliary_labels_know_the_class_that_they_are_in():
    labels = np.array(["dog 0", "cat 1", "dog 1", "cat 1", "cat 0"])
    fine = AuxiliaryLabels.of(labels, np.array([0, 1, 1, 1, 0]))
    assert fine.codes.tolist() == [2, 1, 3, 1, 0]  # cat 0, cat 1, dog 0, dog 1
    assert fine.parents == (0, 1, 0, 1)


def test_a_fine_label_in_two_classes_is_refused():
    with pytest.raises(ValueError, match=r"'cat' .* images 0 and 2"):
        AuxiliaryLabels.of(np.array(["cat", "dog", "cat"]), np.array([0, 1, 1]))


def test_collapsed_logits_are_those_of_the_summed_probabilities():
    logits = torch.randn(6, 5, dtype=torch.float64)
    parents = (0, 2, 1, 0, 2)
    fine = logits.softmax(dim=1)
    wanted = torch.stack([fine[:, [0, 3]].sum(1), fine[:, 2], fine[:, [1, 4]].sum(1)], dim=1)
    torch.testing.assert_close(collapse(logits, parents).softmax(dim=1), wanted)
    assert collapse(logits, None) is logits
