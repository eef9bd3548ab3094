"""Helpers of the denoising course.

Data flows one way, and no module imports one that stands later in this list:
`corpus`, `download`, `audio`, `files`, `recordings`, `noise`, `parallel`, `equaliser`,
`noise_bank`, `backend`, `dataset`, `losses`, `models`, `training`, `gate`, `denoise`,
`baselines`, `hearing`, `peaq`, `metrics`, `plots`, `listening`, `evaluation`, `peers`,
`protocol`, `listening_test`, `asr`, `recognition`, `phonemes`, `phoneme_training`, `ablation`.
Nothing is imported here, so that the command line starts without TensorFlow.
"""
