"""lerobot's pipelines around our policies: its usual steps, with the identity where it would normalise."""

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME


def make_pre_post_processors(config, dataset_stats=None):
    """(preprocessor, postprocessor). `dataset_stats` is not used: scales are among the weights."""
    features = {**config.input_features, **config.output_features}
    steps = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device),
        NormalizerProcessorStep(features=features, norm_map=config.normalization_mapping),
    ]
    back = [
        UnnormalizerProcessorStep(features=config.output_features, norm_map=config.normalization_mapping),
        DeviceProcessorStep(device="cpu"),
    ]
    return (
        PolicyProcessorPipeline(steps=steps, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline(
            steps=back,
            name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )


make_understudy_flow_pre_post_processors = make_pre_post_processors
make_understudy_diffusion_pre_post_processors = make_pre_post_processors
make_understudy_one_step_pre_post_processors = make_pre_post_processors
make_understudy_regression_pre_post_processors = make_pre_post_processors
