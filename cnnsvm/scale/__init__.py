"""Work that is too much for one machine, on Ray: an engine that exists (the extra ``ray``)."""

from cnnsvm.scale.cluster import ClusterError, EngineMissingError
from cnnsvm.scale.generation import build_dataset
from cnnsvm.scale.output import OutputError
from cnnsvm.scale.scoring import predict_dataset

__all__ = ["ClusterError", "EngineMissingError", "OutputError", "build_dataset", "predict_dataset"]
