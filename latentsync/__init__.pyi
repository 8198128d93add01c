from latentsync import errors as errors
from latentsync.api import LipsyncPipeline as LipsyncPipeline
from latentsync.api import load_pipeline as load_pipeline
from latentsync.build.presets import ModelInfo as ModelInfo
from latentsync.build.presets import available_models as available_models
from latentsync.pipelines.job import LipsyncJob as LipsyncJob
from latentsync.pipelines.job import LipsyncResult as LipsyncResult

__all__: list[str]
__version__: str
